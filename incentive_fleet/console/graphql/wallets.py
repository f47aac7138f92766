"""Wallets: balance, pending, debt, lots with their expiry, the statement by cursor, and why the balance is what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import strawberry
from strawberry.types import Info

from incentive_fleet.console.graphql.cursors import FIRST, PageOf, checked_first, page_of, place_of
from incentive_fleet.console.graphql.orders import OrderShown, orders_of
from incentive_fleet.console.graphql.reading import Asking, asking_of
from incentive_fleet.console.graphql.scalars import Long, MinorUnits, Time, shows
from incentive_fleet.console.visitors import Work
from incentive_fleet.ledger.statement_pages import NEWEST, StatementLine, statement_pages, why
from incentive_fleet.ledger.wallet_statement import LotLine, WalletHead, wallet_heads, wallet_lots

Key = tuple[str, str]  # customer, currency
STATEMENT: Final = "transfers"


@strawberry.type(
    name="Lot", description="A parcel of credit. One past its expiry holds nothing spendable, swept or not."
)
class LotShown:
    lot_no: int
    campaign_id: str
    amount: MinorUnits
    remaining: MinorUnits
    expires_at: Time | None = strawberry.field(description="Null: never.")
    order_id: str | None
    cause: str
    created_at: Time
    reissued_from: int | None


@strawberry.type(name="Transfer", description="A transfer of a wallet. The three changes are signed.")
class TransferShown:
    transfer_id: Long
    kind: str
    amount: MinorUnits
    wallet_change: MinorUnits
    pending_change: MinorUnits
    debt_change: MinorUnits
    balance_after: MinorUnits
    meaning: str = strawberry.field(description="For people; it may be reworded.")
    order_id: str | None
    lot_no: int | None
    cause: str
    happened_at: Time
    booked_at: Time
    source: str | None = strawberry.field(description="Of the event behind it; null where a command was.")
    event_id: str | None
    trace_id: str | None

    @shows(OrderShown | None)
    async def order(self, info: Info[Any, Any]) -> Any:
        """The order that it belongs to."""
        return None if self.order_id is None else await asking_of(info).load(orders_of, self.order_id)


@strawberry.type(name="Because", description="A transfer, told in a sentence.")
class BecauseShown:
    sentence: str = strawberry.field(description="For people; it may be reworded.")
    transfer: TransferShown


@dataclass(frozen=True, slots=True)
class _Because:
    sentence: str
    transfer: StatementLine


@strawberry.type(name="Wallet", description="A customer's credit in one currency.")
class WalletShown:
    customer_id: str
    currency: str
    balance: MinorUnits = strawberry.field(description="What the customer can spend, but for lots past their expiry.")
    pending: MinorUnits = strawberry.field(description="Earned on orders that are not delivered yet.")
    debt: MinorUnits = strawberry.field(description="Clawed back after it was spent.")

    @shows(list[LotShown])
    async def lots(self, info: Info[Any, Any], all: bool = False) -> Any:
        """In the order in which they are spent; `all`: spent and expired ones too."""
        asking = asking_of(info)
        return asking.counted(await asking.load(_lots_of, (self.customer_id, self.currency), all))

    @shows(PageOf[TransferShown])
    async def transfers(self, info: Info[Any, Any], first: int = FIRST, after: str | None = None) -> Any:
        """The statement, newest first."""
        return await statement(asking_of(info), (self.customer_id, self.currency), first, after)


@strawberry.type(name="WhyBalance", description="A balance, and each transfer that made it, newest first.")
class WhyBalanceShown:
    customer_id: str
    currency: str
    balance: MinorUnits
    pending: MinorUnits
    debt: MinorUnits

    @shows(PageOf[BecauseShown])
    async def because(self, info: Info[Any, Any], first: int = FIRST, after: str | None = None) -> Any:
        """From the balance back to each transfer and its event."""
        page = await statement(asking_of(info), (self.customer_id, self.currency), first, after)
        for edge in page.edges:
            edge.node = _Because(why(edge.node, self.currency), edge.node)
        return page


async def statement(asking: Asking, wallet: Key, first: int, after: str | None) -> PageOf[Any]:
    """A page of a wallet's transfers."""
    place = place_of(STATEMENT, after, (int,))
    lines = await asking.load(_lines_of, wallet, place[0] if place else NEWEST, checked_first(first) + 1)
    return page_of(STATEMENT, lines, first, after, lambda line: (line.transfer_id,))


async def wallet(info: Info[Any, Any], customer_id: str, currency: str) -> Any:
    """Of the customer in that currency; null when there is none."""
    heads = await asking_of(info).load(_heads_of, customer_id)
    return next((head for head in heads if head.currency == currency), None)


async def wallets(info: Info[Any, Any], customer_id: str) -> Any:
    """Of the customer, by currency; none when the customer is unknown."""
    return await asking_of(info).load(_heads_of, customer_id)


def _heads_of(asking: Asking, customer_ids: Sequence[str]) -> dict[str, list[WalletHead]]:
    return wallet_heads(asking.reader(Work.READ), customer_ids)


def _lots_of(asking: Asking, keys: Sequence[Key], all: bool) -> dict[Key, list[LotLine]]:
    found = wallet_lots(asking.reader(Work.READ), {customer_id for customer_id, _ in keys}, all_lots=all)
    return {key: found.get(key, []) for key in keys}


def _lines_of(asking: Asking, keys: Sequence[Key], below: int, limit: int) -> dict[Key, list[StatementLine]]:
    return statement_pages(asking.reader(Work.READ), keys, below=below, limit=limit)
