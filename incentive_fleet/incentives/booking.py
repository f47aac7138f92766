"""Booking: what one fact of one order, or one act of an operator, does to one wallet, written down as postings.

A posting is a transfer that the rules ask for. The book never decides: it knows between which accounts a kind runs, and
keeps the campaigns' net spend in step with what it posts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NamedTuple

from incentive_fleet.incentives.accounts import (
    ACCOUNTS,
    CAMPAIGN,
    CUSTOMER,
    NOBODY,
    ORDER,
    WAYS,
    AccountClass,
    Kind,
    Owner,
)
from incentive_fleet.incentives.campaigns import Usage
from incentive_fleet.incentives.wallet import Lot, Wallet


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


class Cause(NamedTuple):
    """What made a posting happen: a fact of an order, or an operator's act."""

    name: str  # 'placing', 'delivery', 'refund:<refund_id>', 'grant:<key>', 'grant-reversal:<key>', 'expiry'
    happened_at: datetime
    order_id: str | None


class Posting(NamedTuple):
    """One transfer, as the ledger's table has it. `amount` is positive, in minor units."""

    kind: str
    debit_account: str
    credit_account: str
    currency: str
    amount: int
    customer_id: str
    order_id: str | None
    lot_no: int | None
    cause: str
    happened_at: datetime


@dataclass(slots=True)
class Book:
    """Books one cause into one wallet's currency. `wallet` and `usage` are working copies that the rules change too."""

    cause: Cause
    wallet: Wallet
    usage: Usage
    postings: list[Posting]

    def book(self, kind: Kind, amount: int, *, campaign_id: str = "", lot: Lot | None = None) -> None:
        """Post `amount` minor units between the kind's two accounts, and count what a campaign spends or gets back."""
        name, debit, credit = SIDES[kind]
        wallet, cause = self.wallet, self.cause
        owners = (wallet.customer_id, cause.order_id or "", campaign_id, "")  # as OWNERS
        self.postings.append(
            Posting(
                name,
                debit.prefix + owners[debit.owner],
                credit.prefix + owners[credit.owner],
                wallet.currency,
                amount,
                wallet.customer_id,
                cause.order_id,
                lot.lot_no if lot else None,
                cause.name,
                cause.happened_at,
            )
        )
        if debit.owner == OF_CAMPAIGN:
            self.usage.spend(campaign_id, amount)
        elif credit.owner == OF_CAMPAIGN:
            self.usage.spend(campaign_id, -amount)

    def difference(self, more: int, up: Kind, down: Kind, campaign_id: str) -> None:
        """Post what is `more` of something of a campaign by one kind, what is less by the other, and nothing for nothing."""
        if more:
            self.book(up if more > 0 else down, abs(more), campaign_id=campaign_id)

    def because(self, cause: Cause) -> Book:
        """The same book for another cause."""
        return replace(self, cause=cause)
