"""The answer to a quote request (rules 14): the data of a placing's outcome without order, cause and number."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel

from incentive_fleet.events.models import Currency, Text, UtcTime
from incentive_fleet.events.outcome_parts import (
    OUTGOING,
    Amount,
    CouponOutcome,
    CreditOutcome,
    EarnOutcome,
    StandingLine,
)
from incentive_fleet.events.outcomes import validated

QUOTED: Final = "incentives-quoted.v1"


class IncentivesQuoted(BaseModel):
    """What a placing would get that took effect next (`incentives-quoted.v1`); it promises nothing."""

    model_config = OUTGOING

    quote_id: Text
    customer_id: Text
    currency: Currency
    as_of: UtcTime  # of the snapshot that answered
    coupons: list[CouponOutcome]
    credit: CreditOutcome
    earned: list[EarnOutcome]
    lines: list[StandingLine] | None
    money_due_back: Amount  # 0
    wallet_balance: Amount  # as it stands, the quoted credit still in it
    debt: Amount


class QuotedEnvelope(BaseModel):
    """The CloudEvent around a reply."""

    model_config = OUTGOING

    specversion: Literal["1.0"]
    id: Text
    source: Literal["/incentive-fleet"]
    type: Literal["incentives-quoted.v1"]
    time: UtcTime
    subject: Text  # the quote id
    datacontenttype: Literal["application/json"]
    traceparent: Text | None = None
    data: object


def validate_quoted(body: bytes) -> IncentivesQuoted:
    """Check a whole reply and return its data. Raises Malformed naming the first fault; no retry helps."""
    return validated(body, QuotedEnvelope, {QUOTED: IncentivesQuoted})[1]
