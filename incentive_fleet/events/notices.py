"""The notices out (rules 10): credit that moved outside of orders, or is about to expire; for who writes to customers.

As of the outcomes: the hot path writes plain JSON, and these models are for receivers, the schemas and the tests.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field

from incentive_fleet.errors import Malformed
from incentive_fleet.events.document import shown
from incentive_fleet.events.models import Currency, Text, UtcTime
from incentive_fleet.events.outcome_parts import OUTGOING, Amount, Instant
from incentive_fleet.events.outcomes import validated
from incentive_fleet.events.reasons import Reason


class CreditNotice(BaseModel):
    """Credit of one campaign that came into a customer's wallet or left it."""

    model_config = OUTGOING

    customer_id: Text
    currency: Currency
    amount: Amount
    campaign_id: Text
    expires_at: Instant | None
    grant_key: Text | None  # null where the credit came by no grant
    wallet_balance: Amount
    debt: Amount


class CreditGranted(CreditNotice):
    """Credit was handed out (`credit-granted.v1`)."""


class CreditWithdrawn(CreditNotice):
    """What was left of a grant was taken back (`credit-withdrawn.v1`)."""


class CreditExpired(CreditNotice):
    """What was left of a lot expired (`credit-expired.v1`)."""


class CreditExpiring(BaseModel):
    """So much of a customer's credit expires on a day (`credit-expiring.v1`); told once a day and run."""

    model_config = OUTGOING

    customer_id: Text
    currency: Currency
    day: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]  # in UTC
    amount: Amount


NoticeData = CreditGranted | CreditWithdrawn | CreditExpired | CreditExpiring

NOTICE_TYPES: Final[dict[str, type[NoticeData]]] = {
    "credit-granted.v1": CreditGranted,
    "credit-withdrawn.v1": CreditWithdrawn,
    "credit-expired.v1": CreditExpired,
    "credit-expiring.v1": CreditExpiring,
}


class NoticeEnvelope(BaseModel):
    """The CloudEvent around a notice."""

    model_config = OUTGOING

    specversion: Literal["1.0"]
    id: Text
    source: Literal["/incentive-fleet"]
    type: Literal["credit-granted.v1", "credit-withdrawn.v1", "credit-expired.v1", "credit-expiring.v1"]
    time: UtcTime
    subject: Text  # the customer id
    datacontenttype: Literal["application/json"]
    traceparent: Text | None = None
    data: object


def notice_id(type: str, identity: tuple[str, ...]) -> str:
    """The id of a notice: the same however often it is published, so that receivers can drop repeats."""
    return sha256("\n".join((type, *identity)).encode()).hexdigest()[:32]


def validate_notice(body: bytes) -> NoticeData:
    """Check a whole notice and return its data. Raises Malformed naming the first fault; no retry helps."""
    envelope, data = validated(body, NoticeEnvelope, NOTICE_TYPES)
    if envelope.subject != data.customer_id:
        raise Malformed(
            Reason.SUBJECT_MISMATCH,
            f"subject is {shown(envelope.subject)}, data.customer_id is {shown(data.customer_id)}",
        )
    return data
