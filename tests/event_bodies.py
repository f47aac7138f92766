"""Builders of valid events as dictionaries, for tests that then change one thing, and the bytes of what came of it."""

from __future__ import annotations

import copy
import json
from typing import Any

Document = dict[str, Any]

ORDER: Document = {
    "specversion": "1.0",
    "id": "p-1",
    "source": "/shop/test",
    "type": "order-placed.v1",
    "subject": "o-1",
    "time": "2026-03-01T10:00:00Z",
    "datacontenttype": "application/json",
    "data": {
        "order_id": "o-1",
        "customer_id": "c-1",
        "currency": "EUR",
        "placed_at": "2026-03-01T09:59:58.25Z",
        "lines": [
            {"line_id": "1", "sku": "TEA", "category": "grocery", "quantity": 2, "unit_price": 450},
            {"line_id": "2", "sku": "CUP", "quantity": 1, "unit_price": 1200},
        ],
        "coupons": ["SPRING"],
        "credit_requested": 300,
    },
}
REFUND: Document = {
    "specversion": "1.0",
    "id": "r-1",
    "source": "/shop/test",
    "type": "order-refunded.v1",
    "subject": "o-1",
    "time": "2026-03-05T10:00:00Z",
    "data": {
        "refund_id": "r1",
        "order_id": "o-1",
        "currency": "EUR",
        "refunded_at": "2026-03-05T10:00:00+02:00",
        "lines": [{"line_id": "1", "quantity": 1}, {"line_id": "2", "amount": 600, "reason": "goodwill"}],
    },
}
DELIVERY: Document = {
    "specversion": "1.0",
    "id": "d-1",
    "source": "/shop/test",
    "type": "delivery-completed.v1",
    "subject": "o-1",
    "time": "2026-03-03T10:00:00Z",
    "data": {
        "delivery_id": "d1",
        "order_id": "o-1",
        "delivered_at": "2026-03-03T10:00:00Z",
        "promised_by": "2026-03-02T18:00:00Z",
        "undelivered": [{"line_id": "2", "quantity": 1}],
    },
}
FINAL: Document = {
    "specversion": "1.0",
    "id": "f-1",
    "source": "/shop/test",
    "type": "order-finalized.v1",
    "subject": "o-1",
    "time": "2026-03-02T10:00:00Z",
    "data": {
        "order_id": "o-1",
        "finalized_at": "2026-03-02T10:00:00Z",
        "lines": [
            {"line_id": "1", "sku": "TEA", "category": "grocery", "quantity": 1, "unit_price": 450},
            {"line_id": "bag", "sku": "BAG", "quantity": 1, "unit_price": 25, "kind": "deposit"},
        ],
    },
}
CANCELLING: Document = {
    "specversion": "1.0",
    "id": "c-1",
    "source": "/shop/test",
    "type": "order-cancelled.v1",
    "subject": "o-1",
    "time": "2026-03-02T11:00:00Z",
    "data": {"order_id": "o-1", "cancelled_at": "2026-03-02T11:00:00Z", "reason": "payment failed"},
}
GRANT: Document = {
    "specversion": "1.0",
    "id": "g-1",
    "source": "/support/test",
    "type": "credit-grant-requested.v1",
    "subject": "sorry-1",
    "time": "2026-03-04T10:00:00Z",
    "data": {
        "grant_key": "sorry-1",
        "customer_id": "c-1",
        "currency": "EUR",
        "amount": 500,
        "campaign_id": "goodwill",
        "requested_at": "2026-03-04T10:00:00Z",
        "expires_at": "2026-06-01T00:00:00Z",
        "reason": "late twice",
    },
}
ALL = {
    "order": ORDER,
    "refund": REFUND,
    "delivery": DELIVERY,
    "final": FINAL,
    "cancelling": CANCELLING,
    "grant": GRANT,
}

REMOVED = object()


def changed(document: Document, path: str, value: object) -> Document:
    """A copy in which the field at a path like `data.lines.0.sku` holds the value, or is gone when it is REMOVED."""
    copied = copy.deepcopy(document)
    *steps, last = path.split(".")
    place: Any = copied
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    if value is REMOVED:
        del place[last]
    elif isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return copied


def encoded(document: object) -> bytes:
    """The compact JSON of a document, as most producers send it."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def wrapped(body: bytes) -> bytes:
    """The body as SNS hands it on when raw delivery is off."""
    return encoded(
        {
            "Type": "Notification",
            "MessageId": "dc1e94d9-56c5-5e96-808d-cc7f68faa162",
            "TopicArn": "arn:aws:sns:eu-central-1:123456789012:incentives-events",
            "Message": body.decode(),
            "Timestamp": "2026-03-01T10:00:01.123Z",
            "SignatureVersion": "1",
            "MessageAttributes": {"type": {"Type": "String", "Value": "order-placed.v1"}},
        }
    )
