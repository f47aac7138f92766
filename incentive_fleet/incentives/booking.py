"""Booking: what one fact of one order, or one act of an operator, does to one wallet, written down as postings.

A posting is a transfer that the rules ask for. The book never decides: it knows between which accounts a kind runs, and
keeps the campaigns' net spend in step with what it posts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NamedTuple

from incentive_fleet.incentives.accounts import ACCOUNTS, WAYS, AccountClass, Kind
from incentive_fleet.incentives.campaigns import Usage
from incentive_fleet.incentives.wallet import Lot, Wallet

CAMPAIGN: Final = AccountClass.CAMPAIGN


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

    def book(self, kind: Kind, amount: int, *, campaign_id: str | None = None, lot: Lot | None = None) -> None:
        """Post `amount` minor units between the kind's two accounts, and count what a campaign spends or gets back."""
        way, wallet, cause = WAYS[kind], self.wallet, self.cause
        self.postings.append(
            Posting(
                kind,
                self._account(way.debit, campaign_id),
                self._account(way.credit, campaign_id),
                wallet.currency,
                amount,
                wallet.customer_id,
                cause.order_id,
                lot.lot_no if lot else None,
                cause.name,
                cause.happened_at,
            )
        )
        if way.debit is CAMPAIGN:
            self.usage.spend(str(campaign_id), amount)
        elif way.credit is CAMPAIGN:
            self.usage.spend(str(campaign_id), -amount)

    def because(self, cause: Cause) -> Book:
        """The same book for another cause."""
        return replace(self, cause=cause)

    def _account(self, of: AccountClass, campaign_id: str | None) -> str:
        owner = ACCOUNTS[of].owner
        if owner == "customer":
            return f"{of}:{self.wallet.customer_id}"
        if owner == "order":
            assert self.cause.order_id is not None, "only a fact of an order moves what stands on it"
            return f"{of}:{self.cause.order_id}"
        if owner == "campaign":
            assert campaign_id is not None, "a campaign's account needs the campaign"
            return f"{of}:{campaign_id}"
        return of.value
