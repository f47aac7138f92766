"""Why a dead letter is there: by our consumer's word or by the broker's own. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from incentive_fleet.brokers import message_headers
from incentive_fleet.brokers.message_headers import REPLAY
from incentive_fleet.brokers.messages import Arrival
from incentive_fleet.consumers.admission import Admission, admitted
from incentive_fleet.dead_letters.causes import cause_of
from incentive_fleet.dead_letters.letter import storable
from incentive_fleet.errors import Malformed

UNEXPLAINED: Final = "unexplained"  # neither our consumer nor the broker said why: somebody put it there


@dataclass(frozen=True, slots=True)
class Explanation:
    """The reason code, a sentence, what groups with it, and the history of an unexpected error."""

    reason: str
    detail: str
    group_text: str
    failure: dict[str, Any] | None


def explain(arrival: Arrival, admission: Admission | None) -> Explanation:
    """Who gave it up and why. The consumer's own headers win: a broker never removes them."""
    known = message_headers.failure_in(arrival.headers)
    failure = None
    if known is not None:
        failure = asdict(known) | {"first_at": known.first_at.isoformat(), "last_at": known.last_at.isoformat()}
        failure = {name: storable(value) if isinstance(value, str) else value for name, value in failure.items()}
    reason = arrival.headers.get(message_headers.REASON, "")
    detail = arrival.headers.get(message_headers.DETAIL, "")
    if not reason:
        reason, detail = _by_broker(arrival, admission)
    reason, detail = storable(reason), storable(detail)
    return Explanation(reason, detail, cause_of(reason, detail, failure), failure)


def _by_broker(arrival: Arrival, admission: Admission | None) -> tuple[str, str]:
    moved = arrival.moved_by_broker
    if moved is not None:
        return moved.reason, moved.detail
    if arrival.crowded:
        return _read_again(arrival, admission)
    return UNEXPLAINED, f"found in {arrival.dead_letter_queue} without a reason from a consumer or the broker"


def _read_again(arrival: Arrival, admission: Admission | None) -> tuple[str, str]:
    """A body that fills a message leaves no room for our reason beside it; most reasons lie in the body."""
    try:
        admitted(arrival.body, arrival.source_queue, admission)
    except Malformed as error:
        return error.reason, error.detail
    return (
        UNEXPLAINED,
        f"found in {arrival.dead_letter_queue}; its body leaves no room in the message for the reason",
    )


def replay_mark(headers: Mapping[str, str]) -> tuple[int, int] | None:
    """(dead letter's id, number of the replay) that the message carries; None when it carries none that we wrote."""
    number, _, nth = headers.get(REPLAY, "").partition(".")
    bound = 18  # digits that fit a bigint; anybody may publish a header of this name
    if number.isdecimal() and nth.isdecimal() and len(number) <= bound and len(nth) <= 9:
        return int(number), int(nth)
    return None
