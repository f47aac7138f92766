"""The accounts that there are, and the kinds of transfer between them: one table each (rules 3).

The schema's CHECK on transfers, the journal's account types and docs/rules.md are tested against these tables.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal, NamedTuple

Owner = Literal["customer", "campaign", "order", ""]
CUSTOMER: Final = "customer"
CAMPAIGN: Final = "campaign"
ORDER: Final = "order"
NOBODY: Final = ""


class AccountClass(StrEnum):
    """What an account is of. Its name is the class, a colon and the owner's id; breakage has no owner."""

    WALLET = "wallet"
    PENDING = "pending"
    DEBT = "debt"
    CAMPAIGN = "campaign"
    ORDER = "order"
    BREAKAGE = "breakage"


class AccountRule(NamedTuple):
    """How the accounts of a class are kept."""

    owner: Owner
    normal_side: Literal["debit", "credit"]
    may_be_negative: bool
    meaning: str  # what the balance is


class Kind(StrEnum):
    """Why value moved."""

    GRANT = "grant"
    GRANT_REVERSAL = "grant_reversal"
    COUPON = "coupon"
    CREDIT = "credit"
    EARN = "earn"
    VEST = "vest"
    COUPON_REVERSAL = "coupon_reversal"
    CREDIT_RETURN = "credit_return"
    EARN_CANCEL = "earn_cancel"
    CLAWBACK = "clawback"
    CLAWBACK_DEBT = "clawback_debt"
    DEBT_SETTLEMENT = "debt_settlement"
    MAKE_GOOD = "make_good"
    EXPIRY = "expiry"


class Way(NamedTuple):
    """Between which accounts the transfers of a kind run, and when."""

    debit: AccountClass
    credit: AccountClass
    when: str


ACCOUNTS: Final[dict[AccountClass, AccountRule]] = {
    AccountClass.WALLET: AccountRule(CUSTOMER, "credit", False, "credit that the customer can spend"),
    AccountClass.PENDING: AccountRule(CUSTOMER, "credit", False, "credit earned on orders not delivered yet"),
    AccountClass.DEBT: AccountRule(CUSTOMER, "debit", False, "credit clawed back that was already spent"),
    AccountClass.CAMPAIGN: AccountRule(CAMPAIGN, "debit", True, "net spend of the campaign"),
    AccountClass.ORDER: AccountRule(ORDER, "credit", False, "incentives now standing on the order"),
    AccountClass.BREAKAGE: AccountRule(NOBODY, "credit", False, "expired credit"),
}
WAYS: Final[dict[Kind, Way]] = {
    Kind.GRANT: Way(AccountClass.CAMPAIGN, AccountClass.WALLET, "a grant"),
    Kind.GRANT_REVERSAL: Way(AccountClass.WALLET, AccountClass.CAMPAIGN, "a grant is taken back"),
    Kind.COUPON: Way(
        AccountClass.CAMPAIGN, AccountClass.ORDER, "a coupon is applied, or is worth more on the final basket"
    ),
    Kind.CREDIT: Way(AccountClass.WALLET, AccountClass.ORDER, "credit is applied"),
    Kind.EARN: Way(AccountClass.CAMPAIGN, AccountClass.PENDING, "credit is earned, or more of it on the final basket"),
    Kind.VEST: Way(AccountClass.PENDING, AccountClass.WALLET, "the order is delivered"),
    Kind.COUPON_REVERSAL: Way(AccountClass.ORDER, AccountClass.CAMPAIGN, "a discount is taken back"),
    Kind.CREDIT_RETURN: Way(AccountClass.ORDER, AccountClass.WALLET, "applied credit goes back"),
    Kind.EARN_CANCEL: Way(AccountClass.PENDING, AccountClass.CAMPAIGN, "earned credit falls before it vests"),
    Kind.CLAWBACK: Way(AccountClass.WALLET, AccountClass.CAMPAIGN, "earned credit falls after it vested"),
    Kind.CLAWBACK_DEBT: Way(
        AccountClass.DEBT, AccountClass.CAMPAIGN, "the part of a clawback that the wallet cannot cover"
    ),
    Kind.DEBT_SETTLEMENT: Way(AccountClass.WALLET, AccountClass.DEBT, "credit arrives while there is debt"),
    Kind.MAKE_GOOD: Way(AccountClass.CAMPAIGN, AccountClass.WALLET, "a late delivery"),
    Kind.EXPIRY: Way(AccountClass.WALLET, AccountClass.BREAKAGE, "a lot expires"),
}


class Side(NamedTuple):
    """One account of a kind's two: its name begins so, and goes on with the id of its owner."""

    prefix: str
    owner: int  # which of OWNERS


OWNERS: Final[tuple[Owner, ...]] = (CUSTOMER, ORDER, CAMPAIGN, NOBODY)
OF_CAMPAIGN: Final = OWNERS.index(CAMPAIGN)


def _side(of: AccountClass) -> Side:
    owner = ACCOUNTS[of].owner
    return Side(of.value if owner is NOBODY else f"{of}:", OWNERS.index(owner))


SIDES: Final = {kind: (kind.value, _side(way.debit), _side(way.credit)) for kind, way in WAYS.items()}


def order_account(order_id: str) -> str:
    """The name of an order's account."""
    return f"{AccountClass.ORDER}:{order_id}"
