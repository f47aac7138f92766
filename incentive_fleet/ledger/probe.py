"""The probe: a made-up order, decided, written and rolled back, to tell a fault of the system from a fault of an event.

It goes the way that every event goes: the codec, the rules, the session's own connection and prepared statements, each table
and trigger that a batch touches, and what a COMMIT would check. Its ids and campaigns are its own and new each time, so that
it waits for nobody, and nobody waits for it. It leaves nothing behind but unused numbers of identity columns, as every
transaction does that fails.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from incentive_fleet.events.codec import Event, decode
from incentive_fleet.incentives.campaigns import Campaign, CampaignSet
from incentive_fleet.ledger.batch import rehearse_apart
from incentive_fleet.ledger.session import Session

STARTS, NOON, LATER = (datetime(2026, month, 1, 12, tzinfo=UTC) for month in (1, 2, 3))
ENDS = datetime(9_999, 1, 1, tzinfo=UTC)


def probe(session: Session) -> None:
    """Return when the database takes a made-up order at this moment; some ten round trips. Idempotent.

    Raises what stands in the way: a TransientError, StatementTimedOut, or whatever the driver, the codec or the rules raise.
    """
    name = f"probe-{uuid.uuid4().hex}"
    rehearse_apart(session, _stages(name), _campaigns(name))


def _campaigns(name: str) -> CampaignSet:
    """One of each kind, limited in every way, so that each limit is read."""
    common: dict[str, Any] = {"currency": "EUR", "starts_at": STARTS, "ends_at": ENDS}
    return CampaignSet.of(
        (
            Campaign(
                f"{name}-c", "coupon", amount=50, code=name.upper(), total=9, per_customer=9, budget=10_000, **common
            ),
            Campaign(f"{name}-e", "earn", rate_bps=1_000, budget=10_000, valid_days=30, **common),
            Campaign(f"{name}-m", "make_good", amount=25, budget=10_000, **common),
            Campaign(f"{name}-g", "grant", budget=10_000, **common),
        )
    )


def _stages(name: str) -> list[list[Event]]:
    """First credit is earned and a refund comes early; then the credit is spent and returned, and what waited takes effect."""
    first, second, third, fourth = f"{name}-1", f"{name}-2", f"{name}-3", f"{name}-4"
    estimated = _placed(fourth, name, estimated=True)
    return [
        [_placed(first, name, coupons=[name]), _delivered(first), _refunded(third), estimated, _granted(name)],
        [
            _placed(second, name, credit_requested=60),
            *(_refunded(second), _placed(third, name), _refunded(first, "none")),
            *(_finalized(fourth), _cancelled(fourth)),
        ],
    ]


def _placed(order: str, name: str, **more: Any) -> Event:
    line = {"line_id": "1", "sku": "probe", "quantity": 2, "unit_price": 500}
    known = {"order_id": order, "customer_id": name, "currency": "EUR", "placed_at": NOON.isoformat(), "lines": [line]}
    return _event("order-placed.v1", order, known | more)


def _delivered(order: str) -> Event:
    times = {"delivered_at": LATER.isoformat(), "promised_by": NOON.isoformat()}
    return _event("delivery-completed.v1", order, {"delivery_id": "d", "order_id": order, **times})


def _refunded(order: str, line_id: str = "1") -> Event:
    lines = [{"line_id": "1", "quantity": 2}, *([{"line_id": line_id, "quantity": 1}] if line_id != "1" else [])]
    known = {"refund_id": "r", "order_id": order, "currency": "EUR", "refunded_at": LATER.isoformat(), "lines": lines}
    return _event("order-refunded.v1", order, known)


def _finalized(order: str) -> Event:
    line = {"line_id": "2", "sku": "probe", "quantity": 1, "unit_price": 400, "kind": "fee"}
    known = {"order_id": order, "finalized_at": LATER.isoformat(), "lines": [line]}
    return _event("order-finalized.v1", order, known)


def _cancelled(order: str) -> Event:
    return _event("order-cancelled.v1", order, {"order_id": order, "cancelled_at": LATER.isoformat()})


def _granted(name: str) -> Event:
    known = {"grant_key": name, "customer_id": name, "currency": "EUR", "amount": 1, "campaign_id": f"{name}-g"}
    return _event("credit-grant-requested.v1", name, known | {"requested_at": NOON.isoformat()})


def _event(type_: str, order: str, data: dict[str, Any]) -> Event:
    envelope = {"specversion": "1.0", "id": f"{type_}:{order}", "source": "/probe", "type": type_, "subject": order}
    return decode(json.dumps(envelope | {"time": NOON.isoformat(), "data": data}).encode())
