"""What outcomes are made of: their causes, coupons, credit, earnings and lines, as models for receivers and for the schemas."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from incentive_fleet.errors import Malformed
from incentive_fleet.events.models import Text
from incentive_fleet.events.times import read_time

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
    "not-your-code",
    "code-expired",
    "code-revoked",
    "not-in-audience",
    "not-first-order",
    "same-campaign",
    "not-stackable",
    "below-minimum",
    "no-discount",
    "code-used",
    "customer-limit",
    "total-limit",
    "budget-exhausted",
]
CampaignRefusal = Literal["budget-exhausted"]
CreditRefusal = Literal["wallet-held"]
AnomalyCode = Literal[  # rules 6.6
    "exceeds-gross", "unknown-line", "wrong-currency", "final-not-expected", "cancelled-and-delivered"
]


class OutcomeCause(BaseModel):
    """The event whose fact had this effect: its CloudEvents identity and type."""

    model_config = OUTGOING

    source: Text
    id: Text
    type: Literal[
        "order-placed.v1", "order-finalized.v1", "order-cancelled.v1", "order-refunded.v1", "delivery-completed.v1"
    ]
    fact: Text  # placing, final-basket, cancelling, delivery or refund:<refund_id>


class CouponOutcome(BaseModel):
    """A coupon of the order: the discount that it gave, or the reason why it gave none (then `discount` is 0)."""

    model_config = OUTGOING

    code: Text | None  # null: an automatic coupon
    campaign_id: Text | None
    discount: Amount
    refusal: CouponRefusal | None


class CreditOutcome(BaseModel):
    """Credit from the wallet; `shortfall` is what the order could have taken and the wallet did not hold."""

    model_config = OUTGOING

    requested: Amount
    applied: Amount
    shortfall: Amount
    refusal: CreditRefusal | None  # why none was applied, if that was not for want of it


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


class StandingLine(BaseModel):
    """What stands on a line of the basket that counts: its gross less what went back, and the shares likewise.

    `payable` is gross less discount less credit. Each share is rounded by itself, so that it may be a few units off its
    proportion on a line that went back in part, even below 0.
    """

    model_config = OUTGOING

    line_id: Text
    gross: Amount
    discount: Amount
    credit: Amount
    payable: int


class CouponAdjusted(BaseModel):
    """A coupon's discount by the placing and by the final basket; a redemption that was released counts no more."""

    model_config = OUTGOING

    code: Text | None  # null: an automatic coupon
    campaign_id: Text
    before: Amount
    after: Amount
    released: bool


class CreditAdjusted(BaseModel):
    """Credit that the placing applied, and what the final basket can take of it."""

    model_config = OUTGOING

    before: Amount
    after: Amount


class EarnAdjusted(BaseModel):
    """Credit that was earned on the placing, and on the final basket."""

    model_config = OUTGOING

    campaign_id: Text
    before: Amount
    after: Amount
