"""Goes on with a run of any kind where it stood. Which act does what is said here once."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.consumers.admission import admission_of
from incentive_fleet.dead_letters.acting import Act, carry_through
from incentive_fleet.dead_letters.bulk_edit import editing_by, undo_letters
from incentive_fleet.dead_letters.changes import move
from incentive_fleet.dead_letters.replay import carry_to_the_end
from incentive_fleet.dead_letters.runs import UNWATCHED, Following, RunRecord
from incentive_fleet.ledger.session import Session
from incentive_fleet.settings import Settings

PAST: Final = {
    "edit": "edited",
    "undo": "undone",
    "discard": "discarded",
    "restore": "restored",
    "replay": "replayed",
}


def resume(
    connection: Connection[Any],
    settings: Settings,
    run: RunRecord,
    following: Following = UNWATCHED,
) -> None:
    """Do what is left of a run that is ready, or wait for the process that does. Raises TransientError, as its act does."""
    acts: dict[str, Act] = {
        "edit": editing_by(admission_of(settings)),
        "undo": undo_letters,
        "discard": move,
        "restore": move,
    }
    if run.act in acts:
        carry_through(connection, run.run_id, acts[run.act], following, at=datetime.now(UTC))
        return
    with closing(Session(settings.need_database_url(), application_name="incentives dlq resume")) as session:
        carry_to_the_end(session, settings, run.run_id, following)
