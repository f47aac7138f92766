"""The rows that the ledger writes, each with the columns of its table by name; transfers are `Posting`s as they are."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from incentive_fleet.events.codec import Event
from incentive_fleet.incentives.booking import Posting
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.wallet import Lot, Wallet
from incentive_fleet.ledger.columns import Bytea, Int, Json, Table


class FactRow(NamedTuple):
    """A validated event, kept for ever."""

    order_id: str
    fact: str
    source: str
    event_id: str
    digest: Bytea
    traceparent: str | None
    happened_at: datetime
    data: Json

    @classmethod
    def of(cls, event: Event) -> FactRow:
        return cls(
            order_id=event.order_id,
            fact=event.fact,
            source=event.source,
            event_id=event.id,
            digest=f"\\x{event.digest.hex()}",
            traceparent=event.traceparent,
            happened_at=event.happened_at,
            data=event.canonical.decode(),
        )


class DecisionRow(NamedTuple):
    """What was decided at an order's placing."""

    order_id: str
    customer_id: str
    currency: str
    decision: Json
    counts: bool  # as an order, for first_orders

    @classmethod
    def of(cls, order_id: str, decision: Decision) -> DecisionRow:
        return cls(order_id, decision.customer_id, decision.currency, decision.to_json(), decision.is_order())


class FinalBasketRow(NamedTuple):
    """What was decided by an order's final basket."""

    order_id: str
    decision: Json


class WaitingRow(NamedTuple):
    """A fact that waits for its order's placing, or for its final basket."""

    order_id: str
    fact: str


class TotalsRow(NamedTuple):
    """The running totals of an order, to replace those before."""

    order_id: str
    totals: str


class LotRow(NamedTuple):
    """A new lot."""

    customer_id: str
    currency: str
    lot_no: Int
    campaign_id: str
    amount: int
    remaining: int
    expired: int
    expires_at: datetime | None
    reissue_days: Int
    root_lot_no: Int
    reissued_from: Int | None
    order_id: str | None
    cause: str
    created_at: datetime | None

    @classmethod
    def of(cls, wallet: Wallet, lot: Lot) -> LotRow:
        return cls(
            customer_id=wallet.customer_id,
            currency=wallet.currency,
            lot_no=lot.lot_no,
            campaign_id=lot.campaign_id,
            amount=lot.amount,
            remaining=lot.remaining,
            expired=lot.expired,
            expires_at=lot.expires_at,
            reissue_days=lot.reissue_days,
            root_lot_no=lot.root_lot_no,
            reissued_from=lot.reissued_from,
            order_id=lot.order_id,
            cause=lot.cause,
            created_at=lot.created_at,
        )


class LotChangeRow(NamedTuple):
    """What has changed of a lot."""

    customer_id: str
    currency: str
    lot_no: Int
    remaining: int
    expired: int


class RedemptionRow(NamedTuple):
    """A use of a coupon."""

    campaign_id: str
    customer_id: str
    order_id: str
    discount: int
    redeemed_at: datetime


class ReleaseRow(NamedTuple):
    """The end of a use of a coupon: all of its discount was taken back."""

    campaign_id: str
    customer_id: str
    order_id: str
    released_at: datetime


class AnomalyRow(NamedTuple):
    """Something about an order that a person should look at; `claimed` is the gross value where there is a measure."""

    order_id: str
    reason: str
    subject: str
    claimed: int | None


class GrantRow(NamedTuple):
    """A grant as it is recorded, with the lot that it brought."""

    key: str
    customer_id: str
    currency: str
    amount: int
    campaign_id: str
    expires_at: datetime | None
    lot_no: Int
    granted_at: datetime


class OutcomeRow(NamedTuple):
    """An outcome for the outbox; `body` is the whole CloudEvent."""

    order_id: str
    fact: str
    sequence: Int
    type: str
    body: str


FACTS: Final = Table.of("facts", FactRow)
FINAL_BASKETS: Final = Table.of("final_baskets", FinalBasketRow)
DECISIONS: Final = Table.of("decisions", DecisionRow)
WAITING: Final = Table.of("waiting", WaitingRow)
TRANSFERS: Final = Table.of("transfers", Posting)
LOTS: Final = Table.of("lots", LotRow)
REDEMPTIONS: Final = Table.of("redemptions", RedemptionRow)
GRANTS: Final = Table.of("grants", GrantRow)
OUTBOX: Final = Table.of("outbox", OutcomeRow)
