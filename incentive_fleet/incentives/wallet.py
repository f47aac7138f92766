"""A customer's wallet in one currency, as a working copy: its lots, what they hold and what is owed. It books nothing."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime


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
        """rules 1.2: a lot is expired at t when expires_at <= t."""
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
        """Lots that hold something: soonest expiry first (none last), then oldest first (rules 5.3).

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

    def note_expired(self, lot: Lot, amount: int) -> None:
        """Count what went to breakage of a lot, on the first lot of its chain of reissues."""
        self.lots[lot.root_lot_no].expired += amount
        self.touched.add(lot.root_lot_no)


def _burn_order(lot: Lot) -> tuple[bool, float, int]:
    return (lot.expires_at is None, lot.expires_at.timestamp() if lot.expires_at else 0.0, lot.lot_no)
