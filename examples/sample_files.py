"""Write a small made-up grocery into a folder: terms, codes, grants, events, and a few messages that are odd or broken.

    python examples/sample_files.py sample

The same files every time. No limit of the terms binds, so the events may be applied in any order and any number of times.
"""

import csv
import json
import sys
from pathlib import Path

from incentive_fleet.embedded.sample_shop import SOURCE, Shop, campaigns, codes, events, grants, poison

BERTS_CODE = "BERT-7Q2K9M"


def event(kind: str, id_: str, at: str, data: dict[str, object]) -> bytes:
    """One CloudEvent as a shop would send it."""
    subject = data.get("order_id") or data["grant_key"]
    head = {"specversion": "1.0", "id": id_, "source": SOURCE, "type": kind, "time": at, "subject": subject}
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


def line(line_id: str, category: str, quantity: int, unit_price: int, kind: str = "goods") -> dict[str, object]:
    """One line of a basket."""
    known = {"line_id": line_id, "sku": line_id, "category": category, "quantity": quantity, "unit_price": unit_price}
    return known if kind == "goods" else known | {"kind": kind}


def berts_groceries() -> list[bytes]:
    """An estimated order: the chicken is weighed, oat milk comes for milk, a bun is short, basil is added; then an apology."""
    same = [line("salmon", "fish", 1, 1199), line("tip", "thanks", 1, 200, "tip")]
    ordered = [line("chicken", "meat", 1, 1150), line("milk", "milk", 2, 129), line("buns", "buns", 3, 80)]
    picked = [line("chicken", "meat", 1, 1043), line("oat-milk", "milk", 2, 149), line("buns", "buns", 2, 80)]
    placed = {
        "order_id": "o-1002",
        "customer_id": "bert",
        "currency": "EUR",
        "placed_at": "2026-03-03T08:00:00Z",
        "estimated": True,
        "coupons": ["BASKET", BERTS_CODE],
        "credit_requested": 400,
        "lines": [*ordered, *same, line("bag", "deposit", 1, 25, "deposit")],
    }
    final = {
        "order_id": "o-1002",
        "finalized_at": "2026-03-03T10:00:00Z",
        "lines": [*picked, *same, line("basil", "produce", 1, 229), line("bag", "deposit", 2, 25, "deposit")],
    }
    delivered = {"delivery_id": "d-1002", "order_id": "o-1002", "delivered_at": "2026-03-03T12:00:00Z"}
    care = {
        "grant_key": "care-o-1002",
        "customer_id": "bert",
        "currency": "EUR",
        "amount": 250,
        "campaign_id": "care",
        "requested_at": "2026-03-03T18:00:00Z",
        "reason": "the bun that was short",
    }
    return [
        event("order-placed.v1", "p-1002", "2026-03-03T08:00:00Z", placed),
        event("order-finalized.v1", "f-1002", "2026-03-03T10:00:00Z", final),
        event("delivery-completed.v1", "d-1002", "2026-03-03T12:00:00Z", delivered),
        event("credit-grant-requested.v1", "g-1002", "2026-03-03T18:00:00Z", care),
    ]


def carlas_order() -> list[bytes]:
    """An estimated order that was cancelled before anything was picked: all that it held is released."""
    placed = {
        "order_id": "o-1003",
        "customer_id": "carla",
        "currency": "EUR",
        "placed_at": "2026-03-03T09:00:00Z",
        "estimated": True,
        "coupons": ["BASKET"],
        "lines": [line("salmon", "fish", 2, 1199)],
    }
    cancelled = {"order_id": "o-1003", "cancelled_at": "2026-03-03T09:20:00Z", "reason": "nobody will be at home"}
    return [
        event("order-placed.v1", "p-1003", "2026-03-03T09:00:00Z", placed),
        event("order-cancelled.v1", "c-1003", "2026-03-03T09:20:00Z", cancelled),
    ]


def write_rows(path: Path, *rows: tuple[object, ...]) -> None:
    """A CSV file, its first row the names of the columns."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def main(folder: Path) -> None:
    """Write the files."""
    shop = Shop(orders=40, groceries=0.5)
    bodies = [body for _, body in events(shop)]
    odd = [
        refund("r-early", "o-unknown", "2026-03-04T09:00:00Z", {"line_id": "1", "quantity": 1}),  # waits for its order
        refund("r-99", "o-1001", "2026-03-04T09:00:00Z", {"line_id": "99", "quantity": 1}),  # there is no such line
    ]
    lines = [*bodies, *annas_order(), *berts_groceries(), *carlas_order(), *odd, *bodies[:10]]  # ten come twice
    given = [(f"hello-{name}", name, "EUR", 1_000, "hello", "") for name in ("anna", "bert")]
    given += [(key, customer, currency, 50_000, campaign, "") for key, customer, currency, _, campaign in grants(shop)]

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "campaigns.toml").write_text(campaigns(shop).lstrip(), encoding="utf-8")
    write_rows(folder / "codes.csv", ("campaign_id", "code"), ("neighbours", BERTS_CODE), *codes(shop))
    grant_columns = ("key", "customer_id", "currency", "amount", "campaign_id", "expires_at")
    write_rows(folder / "grants.csv", grant_columns, *given)
    (folder / "events.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (folder / "broken.jsonl").write_bytes(b"\n".join(body for _, _, body in poison(Shop(orders=40))) + b"\n")
    print(f"{folder}: campaigns.toml, codes.csv, grants.csv, events.jsonl ({len(lines)} events), broken.jsonl")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "sample"))
