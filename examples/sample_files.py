"""Write a small made-up grocery into a folder: terms, grants, events, and a few messages that are odd or broken.

    python examples/sample_files.py sample

The same files every time. No limit of the terms binds, so the events may be applied in any order and any number of times.
"""

import csv
import json
import sys
from pathlib import Path

from incentive_fleet.embedded.sample_shop import CAMPAIGNS, SOURCE, Shop, events, grants, poison


def event(kind: str, id_: str, at: str, data: dict[str, object]) -> bytes:
    """One CloudEvent as a shop would send it."""
    head = {"specversion": "1.0", "id": id_, "source": SOURCE, "type": kind, "time": at, "subject": data["order_id"]}
    return json.dumps(head | {"datacontenttype": "application/json", "data": data}).encode()


def refund(refund_id: str, order_id: str, at: str, line: dict[str, object]) -> bytes:
    """A refund of one line."""
    data = {"refund_id": refund_id, "order_id": order_id, "currency": "EUR", "refunded_at": at, "lines": [line]}
    return event("order-refunded.v1", refund_id, at, data)


def annas_order() -> list[bytes]:
    """An order with two coupons and credit, a late and incomplete delivery, and a refund that arrives before the order."""
    placed = {
        "order_id": "o-1001",
        "customer_id": "anna",
        "currency": "EUR",
        "placed_at": "2026-03-02T10:00:00Z",
        "coupons": ["WELCOME10", "OLDCODE"],
        "credit_requested": 500,
        "lines": [
            {"line_id": "1", "sku": "salmon-300g", "category": "fish", "quantity": 2, "unit_price": 1199},
            {"line_id": "2", "sku": "olive-oil", "category": "pantry", "quantity": 1, "unit_price": 899},
            {"line_id": "3", "sku": "delivery", "category": "shipping", "quantity": 1, "unit_price": 490},
        ],
    }
    delivered = {
        "delivery_id": "d-1001",
        "order_id": "o-1001",
        "delivered_at": "2026-03-02T15:00:00Z",
        "promised_by": "2026-03-02T13:00:00Z",
        "undelivered": [{"line_id": "1", "quantity": 1}],
    }
    return [
        refund("r-1001", "o-1001", "2026-03-03T09:00:00Z", {"line_id": "2", "quantity": 1}),
        event("order-placed.v1", "p-1001", "2026-03-02T10:00:00Z", placed),
        event("delivery-completed.v1", "d-1001", "2026-03-02T15:00:00Z", delivered),
    ]


def main(folder: Path) -> None:
    """Write the files."""
    shop = Shop(orders=40)
    bodies = [body for _, body in events(shop)]
    odd = [
        refund("r-early", "o-unknown", "2026-03-04T09:00:00Z", {"line_id": "1", "quantity": 1}),  # waits for its order
        refund("r-99", "o-1001", "2026-03-04T09:00:00Z", {"line_id": "99", "quantity": 1}),  # there is no such line
    ]
    lines = [*bodies, *annas_order(), *odd, *bodies[:10]]  # ten come twice
    given = [("hello-anna", "anna", "EUR", 1_000, "hello", "")]
    given += [(key, customer, currency, 2_500, campaign, "") for key, customer, currency, _, campaign in grants(shop)]

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "campaigns.toml").write_text(CAMPAIGNS.lstrip(), encoding="utf-8")
    with (folder / "grants.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(["key", "customer_id", "currency", "amount", "campaign_id", "expires_at"])
        csv.writer(file).writerows(given)
    (folder / "events.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (folder / "broken.jsonl").write_bytes(b"\n".join(body for _, _, body in poison(shop)) + b"\n")
    print(f"{folder}: campaigns.toml, grants.csv, events.jsonl ({len(lines)} events), broken.jsonl")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "sample"))
