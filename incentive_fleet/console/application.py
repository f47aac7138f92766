"""The web process as one ASGI application: its routes, and what stands before them. It starts nothing and listens nowhere.

Handlers are plain functions, which Starlette runs in its threads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from incentive_fleet.console import graphql, login, pages
from incentive_fleet.console.answers import answer
from incentive_fleet.console.guard import Guard
from incentive_fleet.console.knowing import Knowing
from incentive_fleet.console.pacing import Paces
from incentive_fleet.console.premises import Premises
from incentive_fleet.console.shields import Shields
from incentive_fleet.errors import FleetError

STATIC: Final = Path(__file__).parent / "static"


def application(premises: Premises) -> Starlette:
    """The whole of it."""
    paces = Paces(premises.settings.requests_per_s)
    app = Starlette(
        routes=[
            *login.routes(premises),
            Route("/graphql", graphql.endpoint, methods=["GET", "POST"]),
            Mount("/static", StaticFiles(directory=STATIC), name="static"),
            *pages.routes(),
        ],
        middleware=[
            Middleware(Shields, settings=premises.settings, tally=premises.tally),
            login.sessions(premises.settings),
            Middleware(Knowing, premises=premises, paces=paces),
            Middleware(Guard, settings=premises.settings, paces=paces),
        ],
        exception_handlers={FleetError: answer, HTTPException: answer},
    )
    app.state.premises = premises
    return app
