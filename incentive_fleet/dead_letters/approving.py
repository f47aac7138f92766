"""Whether an act waits for another one's approval: where somebody asks for it, over so many letters, or over so much money.

The settings are those of who begins the act. Nothing is written here; a rehearsal is rolled back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from incentive_fleet.consumers.admission import admission_of
from incentive_fleet.dead_letters.audit import Attribution
from incentive_fleet.dead_letters.rehearsal import RehearsedEffect, letters_to_rehearse, rehearse
from incentive_fleet.errors import DatabaseUnfit, Refused
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.session import Session
from incentive_fleet.settings import Settings


def with_approval(
    by: Attribution, settings: Settings, letters: int, minor_units: Callable[[], int | None] = lambda: 0
) -> Attribution:
    """The same, in need of an approval where the settings ask for one over so many letters or minor units (None: unknown)."""
    if by.needs_approval:
        return by
    needed = settings.approval_letters is not None and letters > settings.approval_letters
    if not needed and settings.approval_minor is not None:
        units = minor_units()
        needed = units is None or units > settings.approval_minor
    return replace(by, needs_approval=needed)


def booked_at_most(session: Session, settings: Settings, ids: Sequence[int]) -> int | None:
    """Minor units of the currency that a replay would book most of; None where that cannot be foretold.

    Raises TransientError.
    """
    try:
        with mapped_errors(blameless=True):
            effects = _rehearsed(session, settings, ids)
    except (Refused, DatabaseUnfit):  # too many, or a login that may not rehearse: then two have to look
        return None
    booked: Counter[str] = Counter()
    for effect in effects:
        for transfer in effect.transfers:
            booked[transfer["currency"]] += transfer["amount"]
    return max(booked.values(), default=0)


def _rehearsed(session: Session, settings: Settings, ids: Sequence[int]) -> list[RehearsedEffect]:
    return rehearse(session, letters_to_rehearse(session.connection, list(ids)), admission_of(settings))
