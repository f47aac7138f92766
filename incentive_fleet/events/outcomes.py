"""The outcomes of facts (rules 10): what a fact's effect was, for order systems and wallets that wait for it.

The hot path writes these as plain JSON and never builds the models: they are for receivers, for the schemas and for
`validate_outcome`, which holds the writer to them. Every field is always present, null where nothing applies, so that a
receiver needs no defaults. Amounts are whole minor units of `currency`. Receivers must ignore fields that they do not
know: a later release may add some.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from incentive_fleet.errors import Malformed
from incentive_fleet.events.document import decode_text, parse_object, shown
from incentive_fleet.events.facts import CANCELLING, REFUND
from incentive_fleet.events.models import Currency, Text, UtcTime
from incentive_fleet.events.outcome_parts import (
    OUTGOING,
    Amount,
    AnomalyCode,
    CampaignAmount,
    ClawedBack,
    CouponAdjusted,
    CouponOutcome,
    CreditAdjusted,
    CreditOutcome,
    EarnAdjusted,
    EarnOutcome,
    MadeGood,
    OutcomeCause,
    StandingLine,
    Vested,
)
from incentive_fleet.events.reasons import Reason
from incentive_fleet.events.refusals import from_validation

OUTCOME_SOURCE: Final = "/incentive-fleet"
OUTCOME_BYTES_MAX: Final = 240 * 1024  # with its lines, rules 10: SNS takes 256 KiB, attributes included


class Outcome(BaseModel):
    """What every outcome of an order says."""

    model_config = OUTGOING

    order_id: Text
    customer_id: Text
    currency: Currency
    sequence: Annotated[int, Field(ge=1)]  # the number of the outcome within its order
    cause: OutcomeCause
    lines: list[StandingLine] | None  # of the basket that counts; null where the body would exceed 240 KiB
    money_due_back: Amount  # what this fact makes due to the customer in money
    wallet_balance: Amount
    debt: Amount


class IncentivesApplied(Outcome):
    """What a placing brought (`incentives-applied.v1`); sent also when nothing was applied."""

    coupons: list[CouponOutcome]
    credit: CreditOutcome
    earned: list[EarnOutcome]


class IncentivesAdjusted(Outcome):
    """What a final basket made of each incentive that the placing gave (`incentives-adjusted.v1`)."""

    coupons: list[CouponAdjusted]
    credit: CreditAdjusted
    credit_returned: Amount
    earned: list[EarnAdjusted]
    anomalies: list[AnomalyCode]


class IncentivesReversed(Outcome):
    """What a refund or a cancelling took back and gave back (`incentives-reversed.v1`)."""

    coupons: list[CampaignAmount]  # discounts reversed, in the order they were applied
    credit_returned: Amount
    earn_cancelled: list[CampaignAmount]
    clawed_back: list[ClawedBack]
    anomalies: list[AnomalyCode]


class IncentivesReissued(Outcome):
    """What a delivery reversed, vested and made good (`incentives-reissued.v1`)."""

    coupons: list[CampaignAmount]
    credit_returned: Amount
    earn_cancelled: list[CampaignAmount]
    clawed_back: list[ClawedBack]
    anomalies: list[AnomalyCode]
    vested: list[Vested]
    made_good: list[MadeGood]


OutcomeData = IncentivesApplied | IncentivesAdjusted | IncentivesReversed | IncentivesReissued

OUTCOME_TYPES: Final[dict[str, type[OutcomeData]]] = {
    "incentives-applied.v1": IncentivesApplied,
    "incentives-adjusted.v1": IncentivesAdjusted,
    "incentives-reversed.v1": IncentivesReversed,
    "incentives-reissued.v1": IncentivesReissued,
}
# Which outcome a fact's type brings; a grant brings a notice.
OUTCOME_OF: Final[dict[str, str]] = {
    "order-placed.v1": "incentives-applied.v1",
    "order-finalized.v1": "incentives-adjusted.v1",
    "order-cancelled.v1": "incentives-reversed.v1",
    "order-refunded.v1": "incentives-reversed.v1",
    "delivery-completed.v1": "incentives-reissued.v1",
}


class OutcomeEnvelope(BaseModel):
    """The CloudEvent around an outcome."""

    model_config = OUTGOING

    specversion: Literal["1.0"]
    id: Text
    source: Literal["/incentive-fleet"]
    type: Literal["incentives-applied.v1", "incentives-adjusted.v1", "incentives-reversed.v1", "incentives-reissued.v1"]
    time: UtcTime
    subject: Text  # the order id
    datacontenttype: Literal["application/json"]
    traceparent: Text | None = None  # the cause's, where it had one
    data: object


def outcome_id(type: str, order_id: str, fact: str) -> str:
    """The id of a fact's outcome: the same for every retry and replay, so that receivers can drop repeats.

    It comes from the fact's identity (rules 2.3), not from its event's, because a fact has one effect whoever reports it.
    """
    # No text of ours holds a line feed, so different identities cannot run together.
    parts = (type, order_id, "", fact) if fact == CANCELLING else (type, order_id, fact.partition(REFUND)[2])
    return sha256("\n".join(parts).encode()).hexdigest()[:32]


def outgoing(
    type: str, id: str, time: str, subject: str, data: object, traceparent: str | None = None
) -> dict[str, object]:
    """An event of ours as it is published: an outcome, a notice or a quote. `traceparent` is its cause's."""
    document: dict[str, object] = {
        "specversion": "1.0",
        "id": id,
        "source": OUTCOME_SOURCE,
        "type": type,
        "time": time,
        "subject": subject,
        "datacontenttype": "application/json",
        "data": data,
    }
    if traceparent is not None:
        document["traceparent"] = traceparent
    return document


Told = TypeVar("Told", bound=BaseModel)
Around = TypeVar("Around", bound=BaseModel)


def validated(body: bytes, around: type[Around], types: Mapping[str, type[Told]]) -> tuple[Around, Told]:
    """The envelope and the data of one of our own events. Raises Malformed naming the first fault; no retry helps."""
    document = parse_object(decode_text(body))
    if document is None:
        raise Malformed(Reason.NOT_A_CLOUD_EVENT, "the document is not an object")
    try:
        envelope = around.model_validate(document)
    except ValidationError as error:
        raise from_validation(error, "") from None
    try:
        return envelope, types[document["type"]].model_validate(document["data"])
    except ValidationError as error:
        raise from_validation(error, "data") from None


def validate_outcome(body: bytes) -> OutcomeData:
    """Check a whole outcome CloudEvent and return its data. Raises Malformed naming the first fault; no retry helps."""
    envelope, data = validated(body, OutcomeEnvelope, OUTCOME_TYPES)
    if OUTCOME_OF[data.cause.type] != envelope.type:
        raise Malformed(Reason.OUT_OF_BOUNDS, f"data.cause.type is {shown(data.cause.type)} in an {envelope.type}")
    if envelope.subject != data.order_id:
        raise Malformed(
            Reason.SUBJECT_MISMATCH, f"subject is {shown(envelope.subject)}, data.order_id is {shown(data.order_id)}"
        )
    return data
