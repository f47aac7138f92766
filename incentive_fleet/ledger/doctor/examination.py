"""The examination of the database: connects, then asks one question after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from incentive_fleet.findings import Finding, Look, Question, look_at, reached
from incentive_fleet.ledger.doctor import durability, place, rights, room
from incentive_fleet.ledger.doctor.subject import ExaminedDatabase, opened

PART: Final = "postgres"
REACHED: Final = reached(PART, "INCENTIVES_DATABASE_URL")
LOOKS: Final[tuple[Look[ExaminedDatabase], ...]] = (*place.LOOKS, *durability.LOOKS, *rights.LOOKS, *room.LOOKS)


def checks() -> tuple[Question, ...]:
    """Every code that `examine` may find."""
    return (REACHED, *(check for look in LOOKS for check in look.checks))


def examine(url: str, owner_url: str | None, *, processes: int, destinations: Sequence[str]) -> Iterator[Finding]:
    """What the database is set to, for a fleet of so many worker processes that has these destinations. It changes nothing.

    Raises SettingsError for an address that cannot be read, DatabaseUnavailable or DatabaseUnfit when it lets nobody in.
    """
    with opened(url, owner_url, processes, destinations) as database:
        yield from look_at(LOOKS, database)
