"""Booking: what one fact of one order, or one act of an operator, does to one wallet, written down as postings; and every way
credit comes into the wallet, goes out of it and returns (rules 3, 6 and 8).

A posting is a transfer that the rules ask for. The book never decides: it knows between which accounts a kind runs, keeps
the campaigns' net spend in step with what it posts, and moves credit in the working copy of the wallet and in the postings
at once; only what is burned is posted by the placing, after its coupons. A wallet that holds anything and a debt never
stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from incentive_fleet.incentives.accounts import OF_CAMPAIGN, SIDES, Kind
from incentive_fleet.incentives.campaigns import Usage
from incentive_fleet.incentives.notices import Notice, expired
from incentive_fleet.incentives.wallet import Lot, Wallet


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


@dataclass(frozen=True, slots=True)
class Burn:
    """Credit that was spent out of one lot, in minor units."""

    lot_no: int
    amount: int


class LotTerms(NamedTuple):
    """What a lot keeps of the campaign that it came from; `expires_at` None never expires."""

    campaign_id: str
    expires_at: datetime | None
    reissue_days: int


def burn(wallet: Wallet, wanted: int, moment: datetime) -> list[Burn]:
    """Take up to `wanted` minor units out of lots unexpired at `moment`, in burn order (rules 5.3); the caller books it."""
    burned: list[Burn] = []
    if wanted <= 0 or wallet.balance <= 0:
        return burned
    for lot in wallet.live_in_burn_order():
        if lot.expired_at(moment):
            continue
        amount = min(wanted, lot.remaining)
        wallet.take(lot, amount)
        burned.append(Burn(lot.lot_no, amount))
        wanted -= amount
        if wanted == 0:
            break
    return burned


def open_lot(book: Book, kind: Kind, amount: int, terms: LotTerms, reissued_from: Lot | None = None) -> Lot:
    """Bring `amount` into the wallet as a new lot, and settle a debt out of it at once (rules 8.2)."""
    lot_no = book.wallet.last_lot_no + 1
    lot = Lot(
        lot_no=lot_no,
        campaign_id=terms.campaign_id,
        amount=amount,
        remaining=0,
        expires_at=terms.expires_at,
        reissue_days=terms.reissue_days,
        root_lot_no=reissued_from.root_lot_no if reissued_from else lot_no,
        reissued_from=reissued_from.lot_no if reissued_from else None,
        order_id=book.cause.order_id,
        cause=book.cause.name,
        created_at=book.cause.happened_at,
    )
    book.wallet.add(lot)
    _arrive(book, kind, lot, amount)
    return lot


def give_back(book: Book, burned: Sequence[Burn], before: int, amount: int) -> None:
    """Return `amount` of applied credit to the lots it was burned from, last burned first; `before` went back already.

    A lot that expires within its reissue_days of the cause's time gets a new lot in its stead (rules 6.4).
    """
    for lot_no, piece in _pieces_last_first(burned, before, amount):
        lot = book.wallet.lots[lot_no]
        usable_until = book.cause.happened_at + timedelta(days=lot.reissue_days)
        if lot.expired_at(usable_until):
            terms = LotTerms(lot.campaign_id, usable_until, lot.reissue_days)
            open_lot(book, Kind.CREDIT_RETURN, piece, terms, reissued_from=lot)
        else:
            _arrive(book, Kind.CREDIT_RETURN, lot, piece)


def _pieces_last_first(burned: Sequence[Burn], before: int, amount: int) -> Iterator[tuple[int, int]]:
    for burn_ in reversed(burned):
        skipped = min(before, burn_.amount)
        before -= skipped
        piece = min(burn_.amount - skipped, amount)
        if piece > 0:
            amount -= piece
            yield burn_.lot_no, piece


def claw_back(book: Book, campaign_id: str, vested_lot_no: int, amount: int) -> int:
    """Take `amount` back: from the vested lot and its reissues, oldest first, then the others in burn order.

    Expired lots that were not swept are taken too. Returns what the wallet lacked: it became debt (rules 6.5).
    """
    wallet = book.wallet
    live = list(wallet.live_in_burn_order())
    family = sorted((lot for lot in live if lot.root_lot_no == vested_lot_no), key=lambda lot: lot.lot_no)
    for lot in family + [lot for lot in live if lot.root_lot_no != vested_lot_no]:
        if amount == 0:
            break
        piece = min(amount, lot.remaining)
        wallet.take(lot, piece)
        book.book(Kind.CLAWBACK, piece, campaign_id=campaign_id, lot=lot)
        amount -= piece
    if amount:
        wallet.debt += amount
        book.book(Kind.CLAWBACK_DEBT, amount, campaign_id=campaign_id)
    return amount


def expire(book: Book, due: datetime) -> list[Notice]:
    """Move what is left of lots with expires_at <= due to breakage; returns a notice for each (rules 8.3).

    Each lot expires at its own time and in the name of the order that it came with.
    """
    notices: list[Notice] = []
    for lot in book.wallet.live_in_burn_order():
        if not lot.expired_at(due):
            continue
        assert lot.expires_at is not None
        amount = lot.remaining
        book.wallet.take(lot, amount)
        book.wallet.note_expired(lot, amount)
        book.because(Cause("expiry", lot.expires_at, lot.order_id)).book(Kind.EXPIRY, amount, lot=lot)
        notices.append(expired(book.wallet, lot, amount))
    return notices


def take_back_grant(book: Book, granted_lot_no: int) -> int:
    """Return what is left of a grant's lot and of its reissues to the campaign; returns the minor units (rules 8.5)."""
    taken = 0
    for lot in sorted(book.wallet.lots.values(), key=lambda lot: lot.lot_no):
        if lot.root_lot_no == granted_lot_no and lot.remaining > 0:
            amount = lot.remaining
            book.wallet.take(lot, amount)
            book.book(Kind.GRANT_REVERSAL, amount, campaign_id=lot.campaign_id, lot=lot)
            taken += amount
    return taken


def _arrive(book: Book, kind: Kind, lot: Lot, amount: int) -> None:
    wallet = book.wallet
    paid = min(wallet.debt, amount)
    book.book(kind, amount, campaign_id=lot.campaign_id, lot=lot)
    if paid:
        book.book(Kind.DEBT_SETTLEMENT, paid, lot=lot)
        wallet.debt -= paid
    wallet.fill(lot, amount)
    if paid:
        wallet.take(lot, paid)
