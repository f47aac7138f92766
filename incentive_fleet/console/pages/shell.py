"""What all pages share: the frame around them, how a template is filled in, and how a form is read.

Everything from outside is shown literally: what a browser would obey is escaped as HTML, what it would hide or reorder is written
as its escape (literal.py). A template says so of nothing; it is done to every value that it prints.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context, select_autoescape
from jinja2.runtime import Context
from markupsafe import Markup, escape
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from incentive_fleet.console.pages import locales
from incentive_fleet.console.pages.handles import seal
from incentive_fleet.console.premises import premises_of, visitor_of
from incentive_fleet.console.visitors import Visitor, Work
from incentive_fleet.errors import Refused
from incentive_fleet.literal import literal, literal_json

TEMPLATES: Final = Path(__file__).parent.parent / "templates"
FIELDS_MAX: Final = 200  # of one form; a page has 50 letters to tick
FIELD_BYTES_MAX: Final = 1024 * 1024  # as much as a whole request may have

Fields = Mapping[str, list[str]]
Answer = Callable[[Request, Fields], Response]


class _Verbatim(str):
    """A text whose every character counts: it goes back to where it came from."""


class _Lines(str):
    """A text of several lines."""


def _shown(value: Any) -> Any:
    if isinstance(value, _Lines):
        return _Lines("\n".join(map(literal, value.split("\n"))))
    return literal(value) if type(value) is str else value


_environment: Final = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    finalize=_shown,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _of_locale(write: Callable[..., str]) -> Callable[..., Markup]:
    @pass_context
    def written(context: Context, *values: Any, **more: Any) -> Markup:
        return escape(write(*values, context["locale"], **more))

    return written


_environment.filters |= {
    "verbatim": _Verbatim,
    "lines": _Lines,
    "json": lambda value: _Lines(literal_json(value, indent=2)),
    "moment": locales.moment,
    "count": _of_locale(locales.count),
    "decimal": _of_locale(locales.decimal),
    "span": _of_locale(locales.span),
    "money": _of_locale(locales.money),
    "signed": _of_locale(lambda minor, currency, locale: locales.money(minor, currency, locale, signed=True)),
}


def page(
    request: Request,
    template: str,
    shown: Mapping[str, Any],
    *,
    status_code: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """A template with what it shows; the visitor stands in its frame."""
    return HTMLResponse(fill(request, template, shown), status_code, dict(headers or {}))


def fill(request: Request, template: str, shown: Mapping[str, Any]) -> str:
    """The HTML alone. The frame is left out where htmx asked for a part."""
    visitor = request.scope.get("visitor")
    settings = premises_of(request).settings
    return _environment.get_template(template).render(
        frame="part.html" if is_part(request) else "frame.html",
        part=is_part(request),
        visitor=visitor,
        may={work.name.lower(): isinstance(visitor, Visitor) and visitor.may(work) for work in Work},
        path=request.url.path,
        csrf=request.scope.get("csrf", ""),
        locale=locales.locale_of(request.headers.get("accept-language", "")),
        handle=lambda kind, value: seal(settings, kind, value),
        login=settings.oidc_issuer is not None,
        **shown,
    )


def is_part(request: Request) -> bool:
    """Whether htmx asks for a part of a page that it has."""
    return "hx-request" in request.headers


def form(work: Work, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    """A handler of a form that takes this work; `answer` runs in a thread, as every handler does."""

    async def read(request: Request) -> Response:
        visitor_of(request).require(work)
        async with request.form(max_files=0, max_fields=FIELDS_MAX, max_part_size=FIELD_BYTES_MAX) as given:
            fields: dict[str, list[str]] = {}
            for name, value in given.multi_items():
                if isinstance(value, str):
                    fields.setdefault(name, []).append(value)
        return await run_in_threadpool(answer, request, fields)

    return read


def text_of(fields: Fields, name: str, *, most: int = 2_000, needed: bool = False, exact: bool = False) -> str:
    """A field's text, without the blanks around it unless it is `exact`. Raises Refused (bad-field)."""
    given = (fields.get(name) or [""])[0]
    text = given if exact and given.strip() else given.strip()
    if needed and not text:
        raise Refused("bad-field", f"{name} is empty: say it, and send the form again")
    if len(text) > most or "\x00" in text:
        raise Refused(
            "bad-field", f"{name} has {len(text)} characters: at most {most} are taken, and no NUL among them"
        )
    return text


def asked(request: Request, name: str) -> str:
    """What an address asks for by that name, "" if nothing. Raises Refused (bad-field)."""
    return text_of({name: request.query_params.getlist(name)}, name)


def number_of(text: str, name: str) -> int | None:
    """A whole number from 1, None for no text. Raises Refused (bad-field)."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) < 2**63):
        raise Refused("bad-field", f"{name} is {text[:50]!r}: a whole number from 1 is needed")
    return int(text)


def away(address: str) -> Response:
    """To another page, after a form: a reload there sends nothing again."""
    return RedirectResponse(address, 303)
