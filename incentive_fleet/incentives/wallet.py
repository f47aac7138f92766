"""A customer's wallet in one currency: lots, debt, and every way credit comes, goes and returns (SPEC 6 and 8).

The functions change the working copy that they are given and append the postings that do the same in the ledger.
The invariant: a wallet that holds anything and a debt never stand side by side.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from incentive_fleet.incentives.posting import (
    BREAKAGE,
    Cause,
    Posting,
    campaign_account,
    debt_account,
    order_account,
    post,
    wallet_account,
)


@dataclass(slots=True)
class Lot:
    """One parcel of credit. `lot_no` counts within the wallet, so the smaller number is the older lot."""

    lot_no: int
    campaign_id: str
    amount: int
    remaining: int
    expires_at: datetime | None
    reissue_days: int
    root_lot_no: int
    reissued_from: int | None = None
    expired: int = 0  # gone to breakage, of this lot and its reissues; kept on the root
    order_id: str | None = None
    cause: str = ""
    created_at: datetime | None = None

    def expired_at(self, moment: datetime) -> bool:
        """SPEC 1: a lot is expired at t when expires_at <= t."""
        return self.expires_at is not None and self.expires_at <= moment


@dataclass(slots=True)
class Wallet:
    """The working copy of one wallet, read under its lock. `lots` holds every lot that may be needed, live or not."""

    customer_id: str
    currency: str
    balance: int = 0
    debt: int = 0
    last_lot_no: int = 0
    lots: dict[int, Lot] = field(default_factory=dict)
    new_lots: list[Lot] = field(default_factory=list)
    touched: set[int] = field(default_factory=set)  # lots that have changed
    _queue: list[Lot] | None = None  # in burn order; lots that were emptied meanwhile keep their place
    _queued: set[int] = field(default_factory=set)

    def live_in_burn_order(self) -> Iterator[Lot]:
        """Lots that hold something: soonest expiry first (none last), then oldest first (SPEC 5).

        Sorted once and kept in order, for one customer may have thousands of lots and hundreds of burns in a batch. No
        credit may arrive while it is iterated over.
        """
        if self._queue is None:
            self._queue = sorted((lot for lot in self.lots.values() if lot.remaining > 0), key=_burn_order)
            self._queued = {lot.lot_no for lot in self._queue}
        return (lot for lot in self._queue if lot.remaining > 0)

    def add(self, lot: Lot) -> None:
        """Take in a new lot, which is empty until credit arrives in it."""
        self.lots[lot.lot_no] = lot
        self.new_lots.append(lot)
        self.last_lot_no = lot.lot_no

    def fill(self, lot: Lot, amount: int) -> None:
        """Put `amount` minor units into one of the wallet's lots."""
        lot.remaining += amount
        self.balance += amount
        self.touched.add(lot.lot_no)
        if self._queue is not None and lot.lot_no not in self._queued:
            insort(self._queue, lot, key=_burn_order)
            self._queued.add(lot.lot_no)

    def take(self, lot: Lot, amount: int) -> None:
        """Take `amount` minor units out of one of the wallet's lots."""
        lot.remaining -= amount
        self.balance -= amount
        self.touched.add(lot.lot_no)


def _burn_order(lot: Lot) -> tuple[bool, float, int]:
    return (lot.expires_at is None, lot.expires_at.timestamp() if lot.expires_at else 0.0, lot.lot_no)


def burn(wallet: Wallet, wanted: int, moment: datetime, cause: Cause, postings: list[Posting]) -> list[tuple[int, int]]:
    """Spend up to `wanted` minor units of lots unexpired at `moment` on the cause's order; returns (lot_no, amount)."""
    assert cause.order_id is not None
    burned: list[tuple[int, int]] = []
    if wanted <= 0 or wallet.balance <= 0:
        return burned
    account = wallet_account(wallet.customer_id)
    for lot in wallet.live_in_burn_order():
        if lot.expired_at(moment):
            continue
        amount = min(wanted, lot.remaining)
        wallet.take(lot, amount)
        burned.append((lot.lot_no, amount))
        postings.append(_post("credit", account, order_account(cause.order_id), amount, wallet, lot, cause))
        wanted -= amount
        if wanted == 0:
            break
    return burned


def open_lot(
    wallet: Wallet,
    kind: str,
    debit_account: str,
    amount: int,
    cause: Cause,
    postings: list[Posting],
    *,
    campaign_id: str,
    expires_at: datetime | None,
    reissue_days: int,
    reissued_from: Lot | None = None,
) -> Lot:
    """Bring `amount` into the wallet as a new lot, and settle a debt out of it at once (SPEC 8)."""
    lot_no = wallet.last_lot_no + 1
    lot = Lot(
        lot_no=lot_no,
        campaign_id=campaign_id,
        amount=amount,
        remaining=0,
        expires_at=expires_at,
        reissue_days=reissue_days,
        root_lot_no=reissued_from.root_lot_no if reissued_from else lot_no,
        reissued_from=reissued_from.lot_no if reissued_from else None,
        order_id=cause.order_id,
        cause=cause.name,
        created_at=cause.happened_at,
    )
    wallet.add(lot)
    _arrive(wallet, lot, kind, debit_account, amount, cause, postings)
    return lot


def give_back(
    wallet: Wallet, burned: list[tuple[int, int]], before: int, amount: int, cause: Cause, postings: list[Posting]
) -> None:
    """Return `amount` of applied credit to the lots it was burned from, last burned first; `before` went back already.

    A lot that expires within its reissue_days of the cause's time gets a new lot in its stead (SPEC 6).
    """
    assert cause.order_id is not None
    source = order_account(cause.order_id)
    for lot_no, piece in _pieces_last_first(burned, before, amount):
        lot = wallet.lots[lot_no]
        usable_until = cause.happened_at + timedelta(days=lot.reissue_days)
        if lot.expired_at(usable_until):
            open_lot(
                wallet,
                "credit_return",
                source,
                piece,
                cause,
                postings,
                campaign_id=lot.campaign_id,
                expires_at=usable_until,
                reissue_days=lot.reissue_days,
                reissued_from=lot,
            )
        else:
            _arrive(wallet, lot, "credit_return", source, piece, cause, postings)


def _pieces_last_first(burned: list[tuple[int, int]], before: int, amount: int) -> Iterator[tuple[int, int]]:
    for lot_no, burned_amount in reversed(burned):
        skipped = min(before, burned_amount)
        before -= skipped
        piece = min(burned_amount - skipped, amount)
        if piece > 0:
            amount -= piece
            yield lot_no, piece


def claw_back(
    wallet: Wallet, campaign_id: str, vested_lot_no: int, amount: int, cause: Cause, postings: list[Posting]
) -> int:
    """Take `amount` back: from the vested lot and its reissues, oldest first, then the others in burn order.

    Expired lots that were not swept are taken too. Returns what the wallet lacked: it became debt (SPEC 6).
    """
    account, campaign = wallet_account(wallet.customer_id), campaign_account(campaign_id)
    live = list(wallet.live_in_burn_order())
    family = sorted((lot for lot in live if lot.root_lot_no == vested_lot_no), key=lambda lot: lot.lot_no)
    for lot in family + [lot for lot in live if lot.root_lot_no != vested_lot_no]:
        if amount == 0:
            break
        piece = min(amount, lot.remaining)
        wallet.take(lot, piece)
        postings.append(_post("clawback", account, campaign, piece, wallet, lot, cause))
        amount -= piece
    if amount:
        wallet.debt += amount
        debt = debt_account(wallet.customer_id)
        postings.append(_post("clawback_debt", debt, campaign, amount, wallet, None, cause))
    return amount


def expire(wallet: Wallet, due: datetime, postings: list[Posting]) -> int:
    """Move what is left of lots with expires_at <= due to breakage; returns the minor units moved (SPEC 8)."""
    moved = 0
    for lot in wallet.live_in_burn_order():
        if not lot.expired_at(due):
            continue
        assert lot.expires_at is not None
        cause = Cause("expiry", lot.expires_at, lot.order_id)
        amount = lot.remaining
        wallet.take(lot, amount)
        wallet.lots[lot.root_lot_no].expired += amount
        wallet.touched.add(lot.root_lot_no)
        postings.append(_post("expiry", wallet_account(wallet.customer_id), BREAKAGE, amount, wallet, lot, cause))
        moved += amount
    return moved


def take_back_grant(wallet: Wallet, granted_lot_no: int, cause: Cause, postings: list[Posting]) -> int:
    """Return what is left of a grant's lot and of its reissues to the campaign; returns the minor units (SPEC 8)."""
    taken = 0
    account = wallet_account(wallet.customer_id)
    for lot in sorted(wallet.lots.values(), key=lambda lot: lot.lot_no):
        if lot.root_lot_no == granted_lot_no and lot.remaining > 0:
            amount = lot.remaining
            wallet.take(lot, amount)
            campaign = campaign_account(lot.campaign_id)
            postings.append(_post("grant_reversal", account, campaign, amount, wallet, lot, cause))
            taken += amount
    return taken


def _arrive(
    wallet: Wallet, lot: Lot, kind: str, source: str, amount: int, cause: Cause, postings: list[Posting]
) -> None:
    account = wallet_account(wallet.customer_id)
    postings.append(_post(kind, source, account, amount, wallet, lot, cause))
    wallet.fill(lot, amount)
    settled = min(wallet.debt, amount)
    if settled:
        wallet.debt -= settled
        wallet.take(lot, settled)
        debt = debt_account(wallet.customer_id)
        postings.append(_post("debt_settlement", account, debt, settled, wallet, lot, cause))


def _post(kind: str, debit: str, credit: str, amount: int, wallet: Wallet, lot: Lot | None, cause: Cause) -> Posting:
    return post(
        cause,
        kind,
        debit,
        credit,
        amount,
        currency=wallet.currency,
        customer_id=wallet.customer_id,
        lot_no=lot.lot_no if lot else None,
    )
