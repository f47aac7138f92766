"""Notices of credit that moves outside of orders, as data (rules 10): granted, withdrawn, expired, about to expire. Pure.

The shapes are described in events/notices.py, as models and schemas; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from incentive_fleet.events.times import format_time
from incentive_fleet.incentives.wallet import Lot, Wallet

GRANTED, WITHDRAWN = "credit-granted.v1", "credit-withdrawn.v1"
EXPIRED, EXPIRING = "credit-expired.v1", "credit-expiring.v1"
_GRANT = "grant:"


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice of one type: what its id is made of, the customer it is about, its data, and when it happened."""

    type: str
    identity: tuple[str, ...]
    customer_id: str
    happened_at: datetime
    data: dict[str, Any]


def granted(wallet: Wallet, lot: Lot, key: str, moment: datetime) -> Notice:
    """A grant, by whichever way."""
    return Notice(GRANTED, (key,), wallet.customer_id, moment, _credit(wallet, lot, lot.amount, key))


def withdrawn(wallet: Wallet, lot: Lot, key: str, amount: int, moment: datetime) -> Notice:
    """A grant that was taken back, as far as something was left of it."""
    return Notice(WITHDRAWN, (key,), wallet.customer_id, moment, _credit(wallet, lot, amount, key))


def expired(wallet: Wallet, lot: Lot, amount: int) -> Notice:
    """What a run of expiry moved of a lot. What has expired of a chain of reissues only grows, and so tells its sweeps apart."""
    assert lot.expires_at is not None, "what has no expiry does not expire"
    root = wallet.lots[lot.root_lot_no]
    key = root.cause.removeprefix(_GRANT) if root.cause.startswith(_GRANT) else None
    identity = (wallet.customer_id, wallet.currency, str(lot.lot_no), str(root.expired))
    return Notice(EXPIRED, identity, wallet.customer_id, lot.expires_at, _credit(wallet, lot, amount, key))


def expiring(customer_id: str, currency: str, day: str, days: int, amount: int, moment: datetime) -> Notice:
    """What expires of a customer's credit on a UTC day, as of the run that looks `days` ahead."""
    data = {"customer_id": customer_id, "currency": currency, "day": day, "amount": amount}
    return Notice(EXPIRING, (customer_id, currency, day, str(days)), customer_id, moment, data)


def _credit(wallet: Wallet, lot: Lot, amount: int, key: str | None) -> dict[str, Any]:
    return {
        "customer_id": wallet.customer_id,
        "currency": wallet.currency,
        "amount": amount,
        "campaign_id": lot.campaign_id,
        "expires_at": format_time(lot.expires_at) if lot.expires_at else None,
        "grant_key": key,
        "wallet_balance": wallet.balance,
        "debt": wallet.debt,
    }
