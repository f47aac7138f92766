"""Why an incentive was not given: a code each and what it means (rules 5.1). A refusal is part of a result, never an error."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class RefusalCode(StrEnum):
    """In the order in which a coupon is asked: the first that fits refuses it."""

    UNKNOWN_COUPON = "unknown-coupon"
    WRONG_CURRENCY = "wrong-currency"
    NOT_ACTIVE = "not-active"
    NOT_YOUR_CODE = "not-your-code"
    CODE_EXPIRED = "code-expired"
    CODE_REVOKED = "code-revoked"
    NOT_IN_AUDIENCE = "not-in-audience"
    NOT_FIRST_ORDER = "not-first-order"
    SAME_CAMPAIGN = "same-campaign"
    NOT_STACKABLE = "not-stackable"
    BELOW_MINIMUM = "below-minimum"
    NO_DISCOUNT = "no-discount"
    CODE_USED = "code-used"
    CUSTOMER_LIMIT = "customer-limit"
    TOTAL_LIMIT = "total-limit"
    BUDGET_EXHAUSTED = "budget-exhausted"
    WALLET_HELD = "wallet-held"  # credit's, which no coupon meets


MEANINGS: Final[dict[RefusalCode, str]] = {
    RefusalCode.UNKNOWN_COUPON: "there is no such code",
    RefusalCode.WRONG_CURRENCY: "the campaign is in another currency than the order",
    RefusalCode.NOT_ACTIVE: "the order was placed outside the campaign's window",
    RefusalCode.NOT_YOUR_CODE: "the code is bound to another customer",
    RefusalCode.CODE_EXPIRED: "the code had expired when the order was placed",
    RefusalCode.CODE_REVOKED: "the code was revoked",
    RefusalCode.NOT_IN_AUDIENCE: "the campaign is not for this customer",
    RefusalCode.NOT_FIRST_ORDER: "the customer has ordered as often as the campaign allows before",
    RefusalCode.SAME_CAMPAIGN: "another coupon of this campaign was accepted on the order",
    RefusalCode.NOT_STACKABLE: "another coupon was accepted, and it or this one is exclusive",
    RefusalCode.BELOW_MINIMUM: "no line is eligible, or a minimum is missed",
    RefusalCode.NO_DISCOUNT: "the discount comes to nothing",
    RefusalCode.CODE_USED: "the code stands on an order already",
    RefusalCode.CUSTOMER_LIMIT: "the customer has used it as often as allowed",
    RefusalCode.TOTAL_LIMIT: "it has been used as often as allowed",
    RefusalCode.BUDGET_EXHAUSTED: "the campaign's budget does not bear it",
    RefusalCode.WALLET_HELD: "the customer's credit is on hold",
}
