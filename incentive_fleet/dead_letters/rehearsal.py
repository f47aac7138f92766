"""What a replay would do, by the real core in a transaction that is rolled back. It never commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Final, assert_never

from psycopg import Connection

from incentive_fleet.consumers.admission import Admission, admitted
from incentive_fleet.consumers.core import CONFLICT, UNEXPECTED, conflict_detail, refusal_detail
from incentive_fleet.dead_letters.conflicts import differences, taken
from incentive_fleet.dead_letters.letter import Letter
from incentive_fleet.dead_letters.store import get_letters
from incentive_fleet.errors import Malformed, Refused
from incentive_fleet.events.codec import Event
from incentive_fleet.events.document import BODY_BYTES_MAX
from incentive_fleet.events.facts import PLACING
from incentive_fleet.incentives.booking import Posting
from incentive_fleet.ledger.batch import EVENTS_MAX, Verdict, apply_events
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.people import require_service
from incentive_fleet.ledger.probe import probe
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.splitting import Probe, Trial

REHEARSED_MAX: Final = EVENTS_MAX  # letters in one rehearsal, which is one transaction
REHEARSED_BYTES_MAX: Final = 16 * 1024 * 1024  # of their bodies, which cost sixteen times as much once they are events

BYTES = f"SELECT coalesce(sum(least(size, {BODY_BYTES_MAX})), 0) FROM dead_letters WHERE id = ANY(%s)"


@dataclass(frozen=True, slots=True)
class RehearsedEffect:
    """What replaying one letter would come to."""

    id: int
    verdict: str  # applied, duplicate, waiting, or the reason code that it would be given up with again
    good: bool  # whether the replay would be done with the message
    sentence: str
    transfers: list[dict[str, Any]]
    difference: list[str] = field(default_factory=list)  # of a conflict: a diff from what was applied to this event


def letters_to_rehearse(connection: Connection[Any], ids: list[int]) -> list[Letter]:
    """The letters with their bodies. Raises Refused (too-many, too-large, unknown-dead-letter) and TransientError."""
    if len(ids) > REHEARSED_MAX:
        raise Refused("too-many", f"{len(ids)} dead letters: at most {REHEARSED_MAX} are rehearsed at once")
    with mapped_errors(blameless=True):
        row = connection.execute(BYTES, (ids,)).fetchone()
    if row is not None and row[0] > REHEARSED_BYTES_MAX:
        raise Refused(
            "too-large", f"the bodies have {row[0]:,} bytes: at most {REHEARSED_BYTES_MAX:,} are rehearsed at once"
        )
    return get_letters(connection, ids)


def rehearse(session: Session, letters: Sequence[Letter], admission: Admission | None) -> list[RehearsedEffect]:
    """The effects of replaying the letters in the order given, one after the other: each meets what those before it did.

    Raises Refused (too-many) over 5,000 letters, (takes-a-service) for a person, DatabaseUnavailable, DatabaseContention, and
    DatabaseUnfit when a made-up order fails as well.
    """
    if len(letters) > REHEARSED_MAX:
        raise Refused("too-many", f"{len(letters)} dead letters: at most {REHEARSED_MAX} are rehearsed at once")
    require_service(session.connection, "a rehearsal (and rolls it back)")
    effects: dict[int, RehearsedEffect] = {}
    decoded: list[tuple[Letter, Event]] = []
    for letter in letters:
        try:
            decoded.append((letter, admitted(letter.current_body, letter.source_queue, admission)))
        except Malformed as error:
            effects[letter.id] = _refused(letter, error.reason, error.detail)
    _apply_all(session, decoded, effects)
    return [effects[letter.id] for letter in letters]


def _apply_all(session: Session, decoded: list[tuple[Letter, Event]], effects: dict[int, RehearsedEffect]) -> None:
    """Together; what a replay would fail on is named alone, and the others are spared."""

    def blame(culprits: Sequence[tuple[tuple[Letter, Event], Exception]]) -> None:
        for (letter, _), error in culprits:
            sentence = f"{type(error).__module__}.{type(error).__qualname__}: {error}"
            effects[letter.id] = _refused(letter, UNEXPECTED, sentence)

    trial: Trial[tuple[Letter, Event]] = Trial(Probe(partial(probe, session)), blame)
    if decoded:
        trial.split(decoded, lambda batch: effects.update(_apply(session, batch)))
    trial.judge()


def _apply(session: Session, batch: Sequence[tuple[Letter, Event]]) -> dict[int, RehearsedEffect]:
    result = apply_events(session, [event for _, event in batch], rehearse=True)
    shares = _shares(batch, result.verdicts, result.postings)
    effects: dict[int, RehearsedEffect] = {}
    for (letter, event), verdict, share in zip(batch, result.verdicts, shares, strict=True):
        effect = _effect(letter, event, verdict, share)
        if verdict is Verdict.CONFLICT:
            effect = replace(effect, difference=differences(taken(session.connection, event), event))
        effects[letter.id] = effect
    return effects


def _shares(
    batch: Sequence[tuple[Letter, Event]], verdicts: list[Verdict], postings: list[Posting]
) -> list[list[Posting]]:
    """The postings of each event; those of facts that waited in the ledger belong to the placing that wakes them."""
    shares: list[list[Posting]] = [[] for _ in batch]
    owners: dict[tuple[str, str], int] = {}
    last_of_order: dict[str, int] = {}
    for position, ((_, event), verdict) in enumerate(zip(batch, verdicts, strict=True)):
        if verdict is Verdict.APPLIED:
            order = event.order_id
            owners[order, event.fact] = position
            if event.fact == PLACING:
                last_of_order[order] = position
    for posting in postings:
        order = posting.order_id or ""
        owner = owners.get((order, posting.cause), last_of_order.get(order))
        if owner is not None:
            shares[owner].append(posting)
    return shares


def _effect(letter: Letter, event: Event, verdict: Verdict, postings: list[Posting]) -> RehearsedEffect:
    match verdict:
        case Verdict.APPLIED:
            count = f"{len(postings)} transfer{'' if len(postings) == 1 else 's'}"
            sentence = count if postings else "0 transfers: new, and books nothing"
        case Verdict.DUPLICATE:
            sentence = "0 transfers: already applied"
        case Verdict.WAITING:
            sentence = f"0 transfers: would wait for its order {event.order_id}"
        case Verdict.CONFLICT:
            return _refused(letter, CONFLICT, conflict_detail(event))
        case Verdict.UNKNOWN_CAMPAIGN | Verdict.WRONG_CURRENCY | Verdict.BUDGET_EXHAUSTED:
            return _refused(letter, verdict.value, refusal_detail(event))
        case Verdict.DEFERRED:
            raise AssertionError("a rehearsal waits for locks")
        case _:
            assert_never(verdict)
    return RehearsedEffect(letter.id, verdict.value, True, sentence, [posting._asdict() for posting in postings])


def _refused(letter: Letter, reason: str, detail: str) -> RehearsedEffect:
    return RehearsedEffect(letter.id, reason, False, f"it would be given up again: {reason}: {detail}", [])


def document(effect: RehearsedEffect) -> dict[str, Any]:
    """The effect as the command line's JSON has it."""
    return asdict(effect)
