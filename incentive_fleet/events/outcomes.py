"""The three events out (rules 10): what a fact's effect was, for order systems and wallets that wait for it.

The hot path writes these as plain JSON and never builds the models: they are for receivers, for the schemas and for
`validate_outcome`, which holds the writer to them. Every field is always present, null where nothing applies, so that a
receiver needs no defaults. Amounts are whole minor units of `currency`. Receivers must ignore fields that they do not
know: a later release may add some.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from incentive_fleet.errors import Malformed
from incentive_fleet.events.document import decode_text, parse_object, shown
from incentive_fleet.events.models import Currency, Text, UtcTime
from incentive_fleet.events.reasons import Reason
from incentive_fleet.events.refusals import from_validation
from incentive_fleet.events.times import read_time

OUTCOME_SOURCE: Final = "/incentive-fleet"

# A name that is not ours is a slip of the writer's here, though receivers are told to let it pass.
OUTGOING: Final = ConfigDict(frozen=True, strict=True, extra="forbid")


def _instant(value: object) -> object:
    try:
        return read_time(value) if isinstance(value, str) else value
    except Malformed as refusal:
        raise PydanticCustomError(refusal.reason, "{detail}", {"detail": refusal.detail}) from None


# An expiry may lie beyond the years of events: it is up to ten years after one.
Instant = Annotated[datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})]
Amount = Annotated[int, Field(ge=0, le=2**63 - 1)]  # minor units; Postgres' bigint keeps them
CouponRefusal = Literal[  # rules 5.1, in its order
    "unknown-coupon",
    "wrong-currency",
    "not-active",
    "not-stackable",
    "below-minimum",
    "no-discount",
    "customer-limit",
    "total-limit",
    "budget-exhausted",
]
CampaignRefusal = Literal["budget-exhausted"]
AnomalyCode = Literal["exceeds-gross", "unknown-line", "wrong-currency"]  # rules 6.6


class OutcomeCause(BaseModel):
    """The event whose fact had this effect: its CloudEvents identity and type."""

    model_config = OUTGOING

    source: Text
    id: Text
    type: Literal["order-placed.v1", "order-refunded.v1", "delivery-completed.v1"]


class CouponOutcome(BaseModel):
    """A coupon of the order: the discount that it gave, or the reason why it gave none (then `discount` is 0)."""

    model_config = OUTGOING

    code: Text
    campaign_id: Text | None
    discount: Amount
    refusal: CouponRefusal | None


class CreditOutcome(BaseModel):
    """Credit from the wallet; `shortfall` is what the order could have taken and the wallet did not hold."""

    model_config = OUTGOING

    requested: Amount
    applied: Amount
    shortfall: Amount


class EarnOutcome(BaseModel):
    """Credit earned under a campaign, pending until delivery, or the reason why none was."""

    model_config = OUTGOING

    campaign_id: Text
    amount: Amount
    refusal: CampaignRefusal | None


class CampaignAmount(BaseModel):
    """An amount that went back to its campaign."""

    model_config = OUTGOING

    campaign_id: Text
    amount: Amount


class ClawedBack(BaseModel):
    """Vested credit taken back: `amount` in all, of which `debt` could not be taken from the wallet and is owed."""

    model_config = OUTGOING

    campaign_id: Text
    amount: Amount
    debt: Amount


class Vested(BaseModel):
    """Earned credit that became spendable; `expires_at` is null when it never expires."""

    model_config = OUTGOING

    campaign_id: Text
    amount: Amount
    expires_at: Instant | None


class MadeGood(BaseModel):
    """Credit for a late delivery, or the reason why a campaign gave none (then `amount` is 0, `expires_at` null)."""

    model_config = OUTGOING

    campaign_id: Text
    amount: Amount
    expires_at: Instant | None
    refusal: CampaignRefusal | None


class IncentivesApplied(BaseModel):
    """What a placing brought (`incentives-applied.v1`); sent also when nothing was applied."""

    model_config = OUTGOING

    order_id: Text
    customer_id: Text
    currency: Currency
    sequence: Annotated[int, Field(ge=1)]  # the number of the outcome within its order
    cause: OutcomeCause
    coupons: list[CouponOutcome]
    credit: CreditOutcome
    earned: list[EarnOutcome]
    wallet_balance: Amount
    debt: Amount


class IncentivesReversed(BaseModel):
    """What a refund took back and gave back (`incentives-reversed.v1`)."""

    model_config = OUTGOING

    order_id: Text
    customer_id: Text
    currency: Currency
    sequence: Annotated[int, Field(ge=1)]
    cause: OutcomeCause
    coupons: list[CampaignAmount]  # discounts reversed, in the order they were applied
    credit_returned: Amount
    earn_cancelled: list[CampaignAmount]
    clawed_back: list[ClawedBack]
    anomalies: list[AnomalyCode]
    wallet_balance: Amount
    debt: Amount


class IncentivesReissued(BaseModel):
    """What a delivery reversed, vested and made good (`incentives-reissued.v1`)."""

    model_config = OUTGOING

    order_id: Text
    customer_id: Text
    currency: Currency
    sequence: Annotated[int, Field(ge=1)]
    cause: OutcomeCause
    coupons: list[CampaignAmount]
    credit_returned: Amount
    earn_cancelled: list[CampaignAmount]
    clawed_back: list[ClawedBack]
    anomalies: list[AnomalyCode]
    vested: list[Vested]
    made_good: list[MadeGood]
    wallet_balance: Amount
    debt: Amount


OutcomeData = IncentivesApplied | IncentivesReversed | IncentivesReissued

OUTCOME_TYPES: Final[dict[str, type[OutcomeData]]] = {
    "incentives-applied.v1": IncentivesApplied,
    "incentives-reversed.v1": IncentivesReversed,
    "incentives-reissued.v1": IncentivesReissued,
}
# Which outcome a fact's type brings.
OUTCOME_OF: Final[dict[str, str]] = {
    "order-placed.v1": "incentives-applied.v1",
    "order-refunded.v1": "incentives-reversed.v1",
    "delivery-completed.v1": "incentives-reissued.v1",
}


class OutcomeEnvelope(BaseModel):
    """The CloudEvent around an outcome."""

    model_config = OUTGOING

    specversion: Literal["1.0"]
    id: Text
    source: Literal["/incentive-fleet"]
    type: Literal["incentives-applied.v1", "incentives-reversed.v1", "incentives-reissued.v1"]
    time: UtcTime
    subject: Text  # the order id
    datacontenttype: Literal["application/json"]
    traceparent: Text | None = None  # the cause's, where it had one
    data: object


def outcome_id(type: str, order_id: str, refund_id: str = "") -> str:
    """The id of a fact's outcome: the same for every retry and replay, so that receivers can drop repeats.

    It comes from the fact's identity (rules 2.3), not from its event's, because a fact has one effect whoever reports it.
    """
    # No text of ours holds a line feed, so different identities cannot run together.
    return sha256("\n".join((type, order_id, refund_id)).encode()).hexdigest()[:32]


def validate_outcome(body: bytes) -> OutcomeData:
    """Check a whole outcome CloudEvent and return its data. Raises Malformed naming the first fault; no retry helps."""
    document = parse_object(decode_text(body))
    if document is None:
        raise Malformed(Reason.NOT_A_CLOUD_EVENT, "the document is not an object")
    try:
        envelope = OutcomeEnvelope.model_validate(document)
    except ValidationError as error:
        raise from_validation(error, "") from None
    try:
        data = OUTCOME_TYPES[envelope.type].model_validate(envelope.data)
    except ValidationError as error:
        raise from_validation(error, "data") from None
    if OUTCOME_OF[data.cause.type] != envelope.type:
        raise Malformed(Reason.OUT_OF_BOUNDS, f"data.cause.type is {shown(data.cause.type)} in an {envelope.type}")
    if envelope.subject != data.order_id:
        raise Malformed(
            Reason.SUBJECT_MISMATCH, f"subject is {shown(envelope.subject)}, data.order_id is {shown(data.order_id)}"
        )
    return data
