"""Why an incentive was not given: a code each and what it means (rules 5.1). A refusal is part of a result, never an error."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class RefusalCode(StrEnum):
    """In the order in which a coupon is asked: the first that fits refuses it."""

    UNKNOWN_COUPON = "unknown-coupon"
    WRONG_CURRENCY = "wrong-currency"
    NOT_ACTIVE = "not-active"
    NOT_STACKABLE = "not-stackable"
    BELOW_MINIMUM = "below-minimum"
    NO_DISCOUNT = "no-discount"
    CUSTOMER_LIMIT = "customer-limit"
    TOTAL_LIMIT = "total-limit"
    BUDGET_EXHAUSTED = "budget-exhausted"


MEANINGS: Final[dict[RefusalCode, str]] = {
    RefusalCode.UNKNOWN_COUPON: "there is no such code",
    RefusalCode.WRONG_CURRENCY: "the campaign is in another currency than the order",
    RefusalCode.NOT_ACTIVE: "the order was placed outside the campaign's window",
    RefusalCode.NOT_STACKABLE: "another coupon was accepted, and it or this one is exclusive",
    RefusalCode.BELOW_MINIMUM: "no line is eligible, or their gross is below the minimum",
    RefusalCode.NO_DISCOUNT: "the discount comes to nothing",
    RefusalCode.CUSTOMER_LIMIT: "the customer has used it as often as allowed",
    RefusalCode.TOTAL_LIMIT: "it has been used as often as allowed",
    RefusalCode.BUDGET_EXHAUSTED: "the campaign's budget does not bear it",
}
