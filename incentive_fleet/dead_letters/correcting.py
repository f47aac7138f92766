"""A conflict whose second event was right: what the ledger holds, the difference in money, what corrects it, rehearsed; booked.

Everything but `book` runs in transactions that are rolled back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.consumers.admission import Admission, admitted
from incentive_fleet.dead_letters.audit import Attribution, NewEntry, add_entries, state_of
from incentive_fleet.dead_letters.changes import lock_letters
from incentive_fleet.dead_letters.conflicts import differences, taken
from incentive_fleet.dead_letters.corrections import (
    CANCEL_AND_PLACE,
    GRANT_DIFFERENCE,
    Applied,
    Correcting,
    Correction,
    Impossible,
    corrections_of,
)
from incentive_fleet.dead_letters.letter import DISCARDED, OPEN, Letter
from incentive_fleet.errors import Refused
from incentive_fleet.events.codec import decode
from incentive_fleet.events.facts import FINAL_BASKET, PLACING
from incentive_fleet.events.models import Line, OrderFinalized, OrderPlaced
from incentive_fleet.incentives.booking import Posting
from incentive_fleet.ledger.batch import BatchResult, Verdict, apply_events
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.grants import Grant, grant
from incentive_fleet.ledger.people import require_service
from incentive_fleet.ledger.session import Session

GOOD: Final = (Verdict.APPLIED, Verdict.DUPLICATE, Verdict.WAITING)

PLACED = "SELECT data FROM facts WHERE order_id = %s AND fact = %s"
HELD = """
    SELECT kind, sum(amount)::bigint FROM transfers
    WHERE customer_id = (SELECT customer_id FROM decisions WHERE order_id = %(order)s) AND order_id = %(order)s GROUP BY kind
"""
GRANTED = (
    f"SELECT {', '.join(Posting._fields)} FROM transfers WHERE customer_id = %s AND cause = %s ORDER BY transfer_id"
)
# What a transfer adds to what an order has of coupons, credit and earned credit.
WEIGHTS: Final = {
    "coupon": ("coupons", 1),
    "coupon_reversal": ("coupons", -1),
    "credit": ("credit", 1),
    "credit_return": ("credit", -1),
    "earn": ("earned", 1),
    "earn_cancel": ("earned", -1),
    "clawback": ("earned", -1),
    "clawback_debt": ("earned", -1),
}


@dataclass(frozen=True, slots=True)
class RehearsedCorrection:
    """A correction, and what booking it would come to now."""

    name: str
    sentence: str
    good: bool
    verdicts: list[str]  # an event each
    transfers: list[dict[str, Any]]
    events: list[bytes] = field(default_factory=list)
    grant: Grant | None = None


@dataclass(frozen=True, slots=True)
class ConflictReport:
    """All that a person needs to decide. Amounts are in minor units, by coupons, credit and earned; of a placing, payable."""

    applied: Applied
    difference: list[str]  # a diff from what was applied to this event
    currency: str
    holds: dict[str, int]
    would: dict[str, int]  # if the second event had been the one that was applied, as far as it can be rehearsed
    corrections: list[RehearsedCorrection]
    impossible: list[Impossible]


def report_conflict(
    session: Session, letter: Letter, admission: Admission | None, *, new_order_id: str | None, campaign_id: str | None
) -> ConflictReport:
    """What the letter's conflict is about and what could be done, rehearsed.

    `new_order_id` is for what is placed anew, `campaign_id` of a grant. Raises Malformed, Refused (no-conflict,
    takes-a-service) and TransientError.
    """
    require_service(session.connection, "a correction, rehearsed or booked,")
    event = admitted(letter.current_body, letter.source_queue, admission)
    known = taken(session.connection, event)
    if not known:
        raise Refused(
            "no-conflict", f"nothing in the ledger has the identity of dead letter {letter.id} with other content"
        )
    placing = _placing(session.connection, event.order_id)
    about = Correcting(
        *(letter.id, event, known[0], placing, letter.first_seen),
        new_order_id or f"{event.order_id}-corrected-{letter.id}"[-200:],
    )
    found = corrections_of(about)
    rehearsed = [_rehearsed(session, one) for one in found if isinstance(one, Correction)]
    holds = _holds(session.connection, about)
    would = _would(about, holds, rehearsed)
    grants, impossible = _granting(session, about, would, holds, campaign_id)
    return ConflictReport(
        applied=known[0],
        difference=differences(known, event),
        currency=_currency(about),
        holds=holds,
        would=would,
        corrections=[*rehearsed, *grants],
        impossible=[*(one for one in found if isinstance(one, Impossible)), *impossible],
    )


def book(session: Session, letter: Letter, correction: RehearsedCorrection, by: Attribution) -> list[str]:
    """Book it, and close the letter with what was booked; the verdict of each event. Booking it again changes nothing.

    Raises Refused (not-open, cannot-be-booked, reason-missing, or as `grant` does) and TransientError; nothing is closed then,
    and the same call again is right.
    """
    if not by.reason.strip():
        raise Refused("reason-missing", "a correction needs a reason, for whoever asks later")
    if letter.status != OPEN:
        raise Refused("not-open", f"dead letter {letter.id} is {letter.status}: only open ones are corrected")
    if not correction.good:
        raise Refused("cannot-be-booked", f"{correction.name}: {', '.join(correction.verdicts)}")
    verdicts: list[str] = []
    if correction.grant is not None:
        (granted,) = grant(session, [correction.grant], by.at)
        if isinstance(granted, Refused):
            raise granted
        verdicts = [granted.value]
    else:
        result = apply_events(session, [decode(body) for body in correction.events])
        verdicts = [verdict.value for verdict in result.verdicts]
        if not set(result.verdicts) <= set(GOOD):
            raise Refused(
                "cannot-be-booked", f"{correction.name}: {', '.join(verdicts)}; another one was booked for this letter"
            )
    _close(session.connection, letter, correction, by)
    return verdicts


def _close(connection: Connection[Any], letter: Letter, correction: RehearsedCorrection, by: Attribution) -> None:
    with mapped_errors(blameless=True), connection.transaction():
        (now,) = lock_letters(connection, [letter.id])
        if now.status != OPEN:
            raise Refused("not-open", f"dead letter {letter.id} is {now.status} meanwhile; the correction is booked")
        connection.execute("UPDATE dead_letters SET status = %s WHERE id = %s", (DISCARDED, letter.id))
        events = [decode(body) for body in correction.events]
        what: dict[str, object] = {
            "correction": correction.name,
            "events": [{"source": event.source, "id": event.id, "order_id": event.order_id} for event in events],
            "grant": None if correction.grant is None else correction.grant.key,
        }
        after = {**state_of(replace(now, status=DISCARDED)), **what}
        add_entries(connection, by, None, [NewEntry(letter.id, "corrected", state_of(now), after)])


def _placing(connection: Connection[Any], order_id: str) -> OrderPlaced | None:
    with mapped_errors(blameless=True):
        row = connection.execute(PLACED, (order_id, PLACING)).fetchone()
    return None if row is None else OrderPlaced.model_validate(row[0])


def _rehearsed(session: Session, correction: Correction) -> RehearsedCorrection:
    result: BatchResult = apply_events(session, [decode(body) for body in correction.events], rehearse=True)
    return RehearsedCorrection(
        correction.name,
        correction.sentence,
        set(result.verdicts) <= set(GOOD),
        [verdict.value for verdict in result.verdicts],
        [posting._asdict() for posting in result.postings],
        correction.events,
    )


def _holds(connection: Connection[Any], about: Correcting) -> dict[str, int]:
    with mapped_errors(blameless=True):
        rows = connection.execute(HELD, {"order": about.event.order_id}).fetchall()
        final = connection.execute(PLACED, (about.event.order_id, FINAL_BASKET)).fetchone()
    counts = about.placing.lines if about.placing is not None else None
    return _with_payable(_standing(rows), counts if final is None else OrderFinalized.model_validate(final[0]).lines)


def _would(about: Correcting, holds: dict[str, int], rehearsed: Sequence[RehearsedCorrection]) -> dict[str, int]:
    """What the second event would have come to: that of the order placed anew, or what stands after the correction."""
    if not rehearsed or not rehearsed[0].good:
        return dict(holds)
    first, anew = rehearsed[0], about.event.data
    if first.name == CANCEL_AND_PLACE and isinstance(anew, OrderPlaced):
        of_new = [one for one in first.transfers if one["order_id"] == about.new_order_id]
        return _with_payable(_standing((one["kind"], one["amount"]) for one in of_new), anew.lines)
    after = Counter(holds)
    after.pop("payable", None)
    for name, amount in _standing(
        (one["kind"], one["amount"]) for one in first.transfers if one["order_id"] == about.event.order_id
    ).items():
        after[name] += amount
    return dict(after)


def _standing(transfers: Any) -> dict[str, int]:
    standing = {"coupons": 0, "credit": 0, "earned": 0}
    for kind, amount in transfers:
        name, sign = WEIGHTS.get(str(kind), ("", 0))
        if name:
            standing[name] += sign * int(amount)
    return standing


def _with_payable(standing: dict[str, int], basket: Sequence[Line] | None) -> dict[str, int]:
    if basket is None:
        return standing
    gross = sum(line.quantity * line.unit_price for line in basket)
    return {**standing, "payable": gross - standing["coupons"] - standing["credit"]}


def _granting(
    session: Session, about: Correcting, would: dict[str, int], holds: dict[str, int], campaign_id: str | None
) -> tuple[list[RehearsedCorrection], list[Impossible]]:
    """Credit for what the customer would have had more of coupons and earned credit."""
    first, second = about.placing, about.event.data
    if not isinstance(second, OrderPlaced) or first is None or first.customer_id != second.customer_id:
        return [], [Impossible(GRANT_DIFFERENCE, "a grant corrects a placing of the same customer")]
    amount = sum(would[name] - holds[name] for name in ("coupons", "earned"))
    if amount <= 0:
        return [], [Impossible(GRANT_DIFFERENCE, "the customer would not have had more coupons and earned credit")]
    if campaign_id is None:
        return [], [Impossible(GRANT_DIFFERENCE, f"{amount} {second.currency}: name its campaign with --campaign-id")]
    key = f"correction-{about.letter_id}"
    one = Grant(key, second.customer_id, second.currency, amount, campaign_id, None)
    sentence = f"{amount} {second.currency} are granted to {second.customer_id}, key {key}"
    granted, postings = _rehearse_grant(session, one, about.at)
    told = str(granted) if isinstance(granted, Refused) else granted.value
    good = not isinstance(granted, Refused)
    return [RehearsedCorrection(GRANT_DIFFERENCE, sentence, good, [told], postings, grant=one)], []


def _rehearse_grant(session: Session, one: Grant, at: datetime) -> tuple[Any, list[dict[str, Any]]]:
    """What it would come to, and its transfers, by the real code in a transaction that is rolled back."""
    connection = session.connection
    with mapped_errors(blameless=True), connection.transaction(force_rollback=True):
        (granted,) = grant(session, [one], at)
        rows = connection.execute(GRANTED, (one.customer_id, f"grant:{one.key}")).fetchall()
    return granted, [dict(zip(Posting._fields, row, strict=True)) for row in rows]


def _currency(about: Correcting) -> str:
    if about.placing is not None:
        return about.placing.currency
    return str(about.applied.data.get("currency", ""))
