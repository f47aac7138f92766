"""Runs: what was told to be done to letters, how far each is, and who may stop it, go on with it, undo it or approve it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from incentive_fleet.console.pages.shell import Fields, away, form, number_of, page, text_of
from incentive_fleet.console.premises import premises_of, visitor_of
from incentive_fleet.console.visitors import Work
from incentive_fleet.dead_letters import bulk_edit, runs
from incentive_fleet.dead_letters.audit import REASON_CHARACTERS, Attribution
from incentive_fleet.dead_letters.runs import RunRecord
from incentive_fleet.errors import Refused

ROWS: Final = 50
REFUSALS_SHOWN: Final = 50
NEWEST: Final = 2**63 - 1
OVER: Final = 286  # htmx asks no more after this one
ENDED: Final = (runs.DONE, runs.STOPPED)


def routes() -> list[Route]:
    """Of these pages."""
    return [
        Route("/runs", listing),
        Route("/runs/{number:int}", show),
        Route("/runs/{number:int}/progress", progress),
        Route("/runs/{number:int}/stop", form(Work.OPERATE, stop), methods=["POST"]),
        Route("/runs/{number:int}/resume", form(Work.OPERATE, resume), methods=["POST"]),
        Route("/runs/{number:int}/undo", form(Work.OPERATE, undo), methods=["POST"]),
        Route("/runs/{number:int}/approve", form(Work.APPROVE, approve), methods=["POST"]),
    ]


def listing(request: Request) -> Response:
    """The newest first."""
    below = number_of(request.query_params.get("below", ""), "below") or NEWEST
    with premises_of(request).connections.to(Work.LOOK, visitor_of(request)) as connection:
        found = runs.list_runs(connection, limit=ROWS + 1, below=below)
    following = found[ROWS - 1].run_id if len(found) > ROWS else None
    return page(request, "runs.html", {"runs": found[:ROWS], "following": following})


def show(request: Request) -> Response:
    """One run, and what can be done about it."""
    return page(request, "run.html", _shown(request))


def progress(request: Request) -> Response:
    """How far it is; the page asks for this every second until it has ended."""
    shown = _shown(request)
    ended = shown["run"].status in ENDED
    return page(request, "run_progress.html", shown, status_code=OVER if ended else 200)


def _shown(request: Request) -> dict[str, Any]:
    visitor, number = visitor_of(request), request.path_params["number"]
    with premises_of(request).connections.to(Work.LOOK, visitor) as connection:
        run = runs.get_run(connection, number)
        refused = runs.refusals(connection, number, limit=REFUSALS_SHOWN)
    return {
        "run": run,
        "refusals": refused,
        "ended": run.status in ENDED,
        "own": run.actor == visitor.name,
        "carried_by_fleet": _by_the_fleet(run),
        "undoable": run.act in bulk_edit.ACTS and run.done > 0,
    }


def _by_the_fleet(run: RunRecord) -> bool:
    return run.act == "replay" or bool(run.parameters.get("detached"))


def stop(request: Request, fields: Fields) -> Response:
    """Let nobody go on with it."""
    number, visitor = request.path_params["number"], visitor_of(request)
    with premises_of(request).connections.to(Work.OPERATE, visitor) as connection:
        runs.stop_run(connection, number, f"stopped by {visitor.name} in the console", _by(request, fields))
    return away(f"/runs/{number}")


def resume(request: Request, fields: Fields) -> Response:
    """Let the fleet go on with it where it stood."""
    number, visitor = request.path_params["number"], visitor_of(request)
    with premises_of(request).connections.to(Work.OPERATE, visitor) as connection:
        run = runs.get_run(connection, number)
        if run.actor != visitor.name:
            raise Refused("not-yours", f"run {number} is {run.actor}'s: a person goes on with their own runs alone")
        if not _by_the_fleet(run):
            raise Refused("not-the-fleets", f"run {number} was begun by a command: `incentives dlq resume {number}`")
        runs.resume_run(connection, number, _by(request, fields))
    return away(f"/runs/{number}")


def undo(request: Request, fields: Fields) -> Response:
    """Take back what an edit did, as a run of its own."""
    by = _by(request, fields)
    with premises_of(request).connections.to(Work.OPERATE, visitor_of(request)) as connection:
        number = bulk_edit.begin_undo(connection, request.path_params["number"], by)
    return away(f"/runs/{number}")


def approve(request: Request, fields: Fields) -> Response:
    """Let another one's run go on."""
    number = request.path_params["number"]
    with premises_of(request).connections.to(Work.APPROVE, visitor_of(request)) as connection:
        runs.approve_run(connection, number, _by(request, fields))
    return away(f"/runs/{number}")


def _by(request: Request, fields: Fields) -> Attribution:
    because = text_of(fields, "because", most=REASON_CHARACTERS)
    return Attribution(visitor_of(request).name, datetime.now(UTC), because)
