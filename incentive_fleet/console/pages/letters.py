"""Dead letters: in groups, as a list that a search finds, one with its body and history, and how one is edited by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from psycopg import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from incentive_fleet.console.pages.handles import seal
from incentive_fleet.console.pages.selections import filters_of, opened, search_of, work_of
from incentive_fleet.console.pages.shell import Fields, away, form, number_of, page
from incentive_fleet.console.premises import premises_of, visitor_of
from incentive_fleet.console.visitors import Work
from incentive_fleet.consumers.admission import admission_of
from incentive_fleet.dead_letters import audit, changes, editing, store
from incentive_fleet.dead_letters.audit import Attribution, AuditFilters
from incentive_fleet.dead_letters.documents import pretty_body
from incentive_fleet.dead_letters.letter import Letter
from incentive_fleet.errors import Malformed, Refused
from incentive_fleet.events.document import BODY_BYTES_MAX

ROWS: Final = 50  # of one page
HISTORY_MAX: Final = 100  # entries beside a letter


def routes() -> list[Route]:
    """Of these pages."""
    return [
        Route("/letters", groups),
        Route("/letters/find", form(Work.LOOK, find), methods=["POST"]),
        Route("/letters/list", listing),
        Route("/letters/history", history),
        Route("/letters/{number:int}", letter),
        Route("/letters/{number:int}/preview", form(Work.READ, preview), methods=["POST"]),
        Route("/letters/{number:int}/edit", form(Work.OPERATE, edit), methods=["POST"]),
    ]


def groups(request: Request) -> Response:
    """What is the matter: letters that are alike, the most first."""
    search = opened(premises_of(request).settings, request.query_params.get("s"))
    with premises_of(request).connections.to(work_of(search), visitor_of(request)) as connection:
        wanted = filters_of(search)
        total = store.count_letters(connection, wanted)
        found = store.group_letters(connection, wanted, limit=ROWS)
    return page(request, "letters_groups.html", {"groups": found, "total": total, "search": search, "rows": ROWS})


def find(request: Request, fields: Fields) -> Response:
    """To what the form asks for, as groups or as a list."""
    search = search_of(fields)
    where = "/letters" if "as_groups" in fields else "/letters/list"
    return away(f"{where}?s={seal(premises_of(request).settings, 'search', search)}")


def listing(request: Request) -> Response:
    """The letters that a search finds, those seen last first."""
    search = opened(premises_of(request).settings, request.query_params.get("s"))
    with premises_of(request).connections.to(work_of(search), visitor_of(request)) as connection:
        wanted = filters_of(search)
        total = store.count_letters(connection, wanted)
        found = store.list_letters(connection, wanted, limit=ROWS + 1, after=_after(request))
    following = f"{found[ROWS - 1].last_seen.isoformat()}_{found[ROWS - 1].id}" if len(found) > ROWS else None
    shown = {"letters": found[:ROWS], "total": total, "search": search, "following": following}
    return page(request, "letters_list.html", shown)


def _after(request: Request) -> tuple[datetime, int] | None:
    text = request.query_params.get("after")
    if text is None:
        return None
    seen, _, number = text.partition("_")
    try:
        return datetime.fromisoformat(seen.replace(" ", "+")), int(number)
    except ValueError:
        raise Refused("bad-field", "this page's address was cut short: look for the letters again") from None


def history(request: Request) -> Response:
    """The trail of all letters, newest first."""
    before = number_of(request.query_params.get("below", ""), "below")
    with premises_of(request).connections.to(Work.LOOK, visitor_of(request)) as connection:
        entries = audit.list_entries(connection, limit=ROWS + 1, wanted=AuditFilters(below=before))
    newest = list(entries)[::-1]
    following = newest[ROWS - 1].act_id if len(newest) > ROWS else None
    return page(request, "letters_history.html", {"entries": newest[:ROWS], "following": following})


def letter(request: Request) -> Response:
    """One letter: what is the matter with it, its body, what was changed, what was done to it."""
    number = request.path_params["number"]
    visitor = visitor_of(request)
    work = Work.READ if visitor.may(Work.READ) else Work.LOOK
    with premises_of(request).connections.to(work, visitor) as connection:
        shown = _letter_shown(connection, number, whole=work is Work.READ)
    return page(request, "letter.html", shown)


def _letter_shown(connection: Connection[Any], number: int, *, whole: bool) -> dict[str, Any]:
    if not whole:
        (found,) = store.get_letters(connection, [number], bodies=False)
        return {"letter": found, "whole": False, "later": store.later_ids(connection, number)}
    found = store.get_letter(connection, number, whole=False)
    too_large = found.size > BODY_BYTES_MAX or len(found.body) > BODY_BYTES_MAX
    return {
        "letter": found,
        "whole": True,
        "later": store.later_ids(connection, number),
        "history": list(audit.list_entries(connection, number, limit=HISTORY_MAX))[::-1],
        "body": pretty_body(found.body),
        "changed": [] if found.edited_body is None else editing.difference(found.body, found.edited_body, "body"),
        "draft": None if too_large or not _is_text(found.current_body) else editing.editable(found.current_body),
        "problem": None,
    }


def _is_text(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def preview(request: Request, fields: Fields) -> Response:
    """What an edit by hand changes, and whether its queue would take it."""
    with premises_of(request).connections.to(Work.READ, visitor_of(request)) as connection:
        seen = store.get_letter(connection, request.path_params["number"])
    body, problem = _body_of(fields, seen), None
    try:
        _require_fit(request, seen, body)
    except Malformed as error:
        problem = error
    lines = editing.difference(seen.current_body, body, f"dead letter {seen.id}")
    return page(request, "letter_preview.html", {"lines": lines, "problem": problem, "number": seen.id})


def edit(request: Request, fields: Fields) -> Response:
    """Save what a replay is to send; what the visitor saw must still be what stands there."""
    number, visitor = request.path_params["number"], visitor_of(request)
    by = Attribution(visitor.name, datetime.now(UTC), (fields.get("because") or [""])[0])
    with premises_of(request).connections.to(Work.OPERATE, visitor) as connection:
        found = store.get_letter(connection, number)
        seen = replace(found, current_sha256=_digest_of(fields))
        body = found.body if "original" in fields else _body_of(fields, found)
        try:
            changes.save_edit(connection, seen, body, by, admission_of(premises_of(request).settings))
        except Malformed as error:
            shown = _letter_shown(connection, number, whole=True)
            shown |= {"draft": (fields.get("body") or [""])[0], "problem": error}
            return page(request, "letter.html", shown, status_code=422)
    return away(f"/letters/{number}")


def _body_of(fields: Fields, seen: Letter) -> bytes:
    """What the form holds, which sends its lines' ends as CR LF; the very same body where nobody changed it."""
    text = (fields.get("body") or [""])[0].replace("\r\n", "\n")
    before = editing.editable(seen.current_body).replace("\r\n", "\n")
    return seen.current_body if text.rstrip("\n") == before.rstrip("\n") else text.encode("utf-8", "surrogatepass")


def _digest_of(fields: Fields) -> bytes:
    try:
        return bytes.fromhex((fields.get("seen") or [""])[0])
    except ValueError:
        raise Refused("bad-field", "seen is not the digest of a body: open the letter again") from None


def _require_fit(request: Request, seen: Letter, body: bytes) -> None:
    """Raises Malformed where a replay of it would be given up again."""
    from incentive_fleet.consumers.admission import admitted

    if body not in (seen.body, seen.current_body):
        admitted(body, seen.source_queue, admission_of(premises_of(request).settings))
