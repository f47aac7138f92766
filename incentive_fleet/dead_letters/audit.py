"""The audit trail: who did what to which dead letter, when, why, with the state before and after. It only ever adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from incentive_fleet.dead_letters.letter import Letter, storable, storable_values
from incentive_fleet.errors import Refused
from incentive_fleet.ledger.connection import mapped_errors

COLLECTOR: Final = "collector"  # the actor of what nobody did by hand
ACTOR_CHARACTERS: Final = 200
REASON_CHARACTERS: Final = 2_000
ROWS_MAX: Final = 10_000  # of one listing

ADD = """
    INSERT INTO dead_letter_audit (dead_letter_id, act, actor, acted_at, reason, before, after)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
READ = """
    SELECT act_id, dead_letter_id, act, actor, acted_at, reason, before, after FROM dead_letter_audit
    WHERE %(id)s::bigint IS NULL OR dead_letter_id = %(id)s
    ORDER BY act_id DESC LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry of the trail."""

    act_id: int
    dead_letter_id: int
    act: str  # collected, returned, reopened, edited, claimed, sent, not-sent, discarded, restored
    actor: str
    acted_at: datetime
    reason: str
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attribution:
    """Who acts, when, and why. Raises Refused where the actor or reason is out of bounds."""

    actor: str
    at: datetime  # aware
    reason: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.actor.strip()) <= ACTOR_CHARACTERS:
            raise Refused(
                "actor-out-of-bounds",
                f"the actor is {self.actor[:50]!r}: 1 to {ACTOR_CHARACTERS} characters are needed",
            )
        if len(self.reason) > REASON_CHARACTERS:
            raise Refused(
                "reason-out-of-bounds",
                f"the reason has {len(self.reason)} characters: at most {REASON_CHARACTERS} are allowed",
            )


def state_of(letter: Letter) -> dict[str, object]:
    """What an act can change, as the trail keeps it."""
    return {
        "status": letter.status,
        "body_sha256": letter.current_sha256.hex(),
        "life": letter.life,
        "replays": letter.replays,
    }


def add_entry(
    connection: Connection[Any],
    dead_letter_id: int,
    act: str,
    by: Attribution,
    before: dict[str, object],
    after: dict[str, object],
) -> None:
    """Record an act in the caller's transaction, so that neither stands without the other."""
    values = (storable_values(before), storable_values(after))
    connection.execute(
        ADD, (dead_letter_id, act, storable(by.actor.strip()), by.at, storable(by.reason), *map(Jsonb, values))
    )


def list_entries(
    connection: Connection[Any], dead_letter_id: int | None = None, *, limit: int = 100
) -> Sequence[AuditEntry]:
    """The newest `limit` entries, on one letter or on all, the oldest of them first.

    Raises ValueError for a limit outside 1 to 10,000, DatabaseUnavailable or DatabaseContention; a retry helps with
    the latter two.
    """
    if not 1 <= limit <= ROWS_MAX:
        raise ValueError(f"limit is {limit}: must be 1 to {ROWS_MAX}")
    with mapped_errors(blameless=True), connection.cursor(row_factory=class_row(AuditEntry)) as cursor:
        return cursor.execute(READ, {"id": dead_letter_id, "limit": limit}).fetchall()[::-1]
