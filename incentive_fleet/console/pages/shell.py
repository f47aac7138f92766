"""What all pages share: the frame around them, and how a template is filled in. Everything from outside is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse

TEMPLATES: Final = Path(__file__).parent.parent / "templates"
_environment: Final = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=select_autoescape(default=True), undefined=StrictUndefined
)


def page(
    request: Request,
    template: str,
    shown: Mapping[str, Any],
    *,
    status_code: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """A template with what it shows; the visitor stands in its frame."""
    html = _environment.get_template(template).render(
        visitor=request.scope.get("visitor"), path=request.url.path, **shown
    )
    return HTMLResponse(html, status_code, dict(headers or {}))
