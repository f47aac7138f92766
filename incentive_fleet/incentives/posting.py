"""A posting is a transfer that the rules ask for. Here are its form, its kinds and the names of accounts (SPEC 3)."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

BREAKAGE = "breakage"


class Cause(NamedTuple):
    """What made a posting happen: a fact of an order, or an operator's command."""

    name: str  # 'placing', 'delivery', 'refund:<refund_id>', 'grant:<key>', 'grant-reversal:<key>', 'expiry'
    happened_at: datetime
    order_id: str | None


class Posting(NamedTuple):
    """One transfer in the order of the ledger's columns. `amount` is positive, in minor units."""

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


def post(
    cause: Cause,
    kind: str,
    debit_account: str,
    credit_account: str,
    amount: int,
    *,
    currency: str,
    customer_id: str,
    lot_no: int | None = None,
) -> Posting:
    """The posting of `amount` minor units that the cause asks for."""
    return Posting(
        kind,
        debit_account,
        credit_account,
        currency,
        amount,
        customer_id,
        cause.order_id,
        lot_no,
        cause.name,
        cause.happened_at,
    )


def wallet_account(customer_id: str) -> str:
    return f"wallet:{customer_id}"


def pending_account(customer_id: str) -> str:
    return f"pending:{customer_id}"


def debt_account(customer_id: str) -> str:
    return f"debt:{customer_id}"


def campaign_account(campaign_id: str) -> str:
    return f"campaign:{campaign_id}"


def order_account(order_id: str) -> str:
    return f"order:{order_id}"
