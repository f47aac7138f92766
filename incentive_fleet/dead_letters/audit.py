"""The audit trail: who did what to which dead letter or run, when, why, with the state before and after. It only ever adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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

BODY_BYTES: Final = 16_384  # of a body beside an edit, in the history of one letter

ADD = """
    INSERT INTO dead_letter_audit (dead_letter_id, run_id, act, actor, acted_at, reason, before, after)
    SELECT id, %(run)s::bigint, act, %(actor)s, %(at)s, reason, before, after
    FROM unnest(%(ids)s::bigint[], %(acts)s::text[], %(reasons)s::text[], %(before)s::jsonb[], %(after)s::jsonb[])
        AS entries (id, act, reason, before, after)
"""
READ = """
    SELECT act_id, dead_letter_id, run_id, act, actor, acted_at, reason, before, after FROM dead_letter_audit
    WHERE (%(id)s::bigint IS NULL OR dead_letter_id = %(id)s)
      AND (%(run)s::bigint IS NULL OR run_id = %(run)s)
      AND (%(actor)s::text IS NULL OR actor = %(actor)s)
      AND (%(act)s::text IS NULL OR act = %(act)s)
      AND (%(since)s::timestamptz IS NULL OR acted_at >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR acted_at < %(until)s)
      AND (%(below)s::bigint IS NULL OR act_id < %(below)s)
    ORDER BY act_id DESC LIMIT %(limit)s
"""
# The newest of each letter.
READ_MANY = """
    SELECT act_id, dead_letter_id, run_id, act, actor, acted_at, reason, before, after
    FROM unnest(%s::bigint[]) AS wanted (id), LATERAL (
        SELECT * FROM dead_letter_audit WHERE dead_letter_id = wanted.id AND act_id < %s ORDER BY act_id DESC LIMIT %s) AS newest
    ORDER BY act_id DESC
"""
# The trail holds no body, so that a purge leaves none behind; an edit's stand with its run for as long as the letter stays.
BODIES = f"""
    SELECT l.run_id, substring(coalesce(l.before, d.body) FROM 1 FOR {BODY_BYTES}),
           substring(coalesce(l.after, d.body) FROM 1 FOR {BODY_BYTES})
    FROM dead_letter_run_letters l JOIN dead_letters d ON d.id = l.dead_letter_id
    WHERE l.dead_letter_id = %s AND l.run_id = ANY(%s) AND l.state = 'done'
"""
ACTS: Final = (
    *("collected", "imported", "returned", "reopened", "edited", "undone", "claimed", "sent", "not-sent"),
    *(
        "discarded",
        "restored",
        "corrected",
        "purged",
        "approved",
        "stopped",
        "resumed",
    ),  # the last three of a run as a whole
)
WITH_BODIES: Final = ("edited", "undone")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry of the trail."""

    act_id: int
    dead_letter_id: int | None  # None where it was done to a run as a whole
    run_id: int | None  # of the act that it was a part of
    act: str  # one of ACTS
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
    needs_approval: bool = False  # another one has to approve the act before anything of it is done

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


@dataclass(frozen=True, slots=True)
class NewEntry:
    """What happened to one letter, or to a run as a whole: an entry that is yet to be written. `reason` is "" for the act's own."""

    dead_letter_id: int | None
    act: str
    before: dict[str, object]
    after: dict[str, object]
    reason: str = ""


def add_entry(
    connection: Connection[Any],
    dead_letter_id: int,
    act: str,
    by: Attribution,
    before: dict[str, object],
    after: dict[str, object],
) -> None:
    """Record an act in the caller's transaction, so that neither stands without the other."""
    add_entries(connection, by, None, [NewEntry(dead_letter_id, act, before, after)])


def add_entries(connection: Connection[Any], by: Attribution, run_id: int | None, changes: Sequence[NewEntry]) -> None:
    """Record what an act did to many letters, in one statement of the caller's transaction."""
    if not changes:
        return
    values: dict[str, object] = {
        "run": run_id,
        "actor": storable(by.actor.strip()),
        "at": by.at,
        "ids": [change.dead_letter_id for change in changes],
        "acts": [change.act for change in changes],
        "reasons": [storable(change.reason or by.reason) for change in changes],
        "before": [Jsonb(storable_values(change.before)) for change in changes],
        "after": [Jsonb(storable_values(change.after)) for change in changes],
    }
    connection.execute(ADD, values)


def add_run_entry(
    connection: Connection[Any], run_id: int, act: str, by: Attribution, statuses: tuple[str, str]
) -> None:
    """Record what was done to a run as a whole, and its statuses before and after, in the caller's transaction."""
    before, after = ({"status": status} for status in statuses)
    add_entries(connection, by, run_id, [NewEntry(None, act, dict(before), dict(after))])


@dataclass(frozen=True, slots=True)
class AuditFilters:
    """Which entries: all that is given must hold; None asks nothing."""

    id: int | None = None
    run: int | None = None
    actor: str | None = None
    act: str | None = None
    since: datetime | None = None  # acted then or later; aware
    until: datetime | None = None  # acted before then; aware
    below: int | None = None  # entries with lower numbers


def list_entries(
    connection: Connection[Any],
    dead_letter_id: int | None = None,
    *,
    limit: int = 100,
    wanted: AuditFilters | None = None,
) -> Sequence[AuditEntry]:
    """The newest `limit` entries, on one letter or on all, the oldest of them first.

    On one letter, an edit's `before` and `after` have the beginning of the body. Raises ValueError for a limit outside 1 to
    10,000, Refused (nul-in-filter), DatabaseUnavailable or DatabaseContention; a retry helps with the latter two.
    """
    if not 1 <= limit <= ROWS_MAX:
        raise ValueError(f"limit is {limit}: must be 1 to {ROWS_MAX}")
    values = asdict(replace(wanted or AuditFilters(), id=dead_letter_id))
    if any(isinstance(value, str) and "\x00" in value for value in values.values()):
        raise Refused("nul-in-filter", "a filter holds the character NUL, which no stored text has")
    with mapped_errors(blameless=True), connection.cursor(row_factory=class_row(AuditEntry)) as cursor:
        entries = cursor.execute(READ, {**values, "limit": limit}).fetchall()[::-1]
    return entries if dead_letter_id is None else _with_bodies(connection, dead_letter_id, entries)


def newest_entries(
    connection: Connection[Any], dead_letter_ids: Sequence[int], *, below: int = 2**63 - 1, limit: int = 100
) -> dict[int, list[AuditEntry]]:
    """Of each letter its `limit` entries next below that number, the newest first, without bodies, in one statement.

    Raises TransientError.
    """
    found: dict[int, list[AuditEntry]] = {id: [] for id in dead_letter_ids}
    with mapped_errors(blameless=True), connection.cursor(row_factory=class_row(AuditEntry)) as cursor:
        for entry in cursor.execute(READ_MANY, (list(found), below, limit)).fetchall():
            assert entry.dead_letter_id is not None
            found[entry.dead_letter_id].append(entry)
    return found


def _with_bodies(connection: Connection[Any], dead_letter_id: int, entries: list[AuditEntry]) -> list[AuditEntry]:
    runs = [entry.run_id for entry in entries if entry.act in WITH_BODIES and entry.run_id is not None]
    if not runs:
        return entries
    with mapped_errors(blameless=True), connection.cursor(binary=True) as cursor:
        rows = cursor.execute(BODIES, (dead_letter_id, runs)).fetchall()
    bodies = {run: [body.decode("utf-8", "replace") for body in both] for run, *both in rows}
    return [
        _with_body(entry, *bodies[entry.run_id]) if entry.act in WITH_BODIES and entry.run_id in bodies else entry
        for entry in entries
    ]


def _with_body(entry: AuditEntry, before: str, after: str) -> AuditEntry:
    return replace(entry, before={**entry.before, "body": before}, after={**entry.after, "body": after})
