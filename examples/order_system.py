"""A small shop with an outbox: an order and its event commit together, and a relay publishes the event.

    SHOP_DATABASE_URL=postgresql+psycopg://... python examples/order_system.py --orders 3 --to rabbitmq

The brokers are named as for the `incentives` command: INCENTIVES_RABBITMQ_URL, or AWS_REGION and what boto3 reads.
"""

import argparse
import os
import sys
from datetime import UTC, datetime
from uuid import uuid4

from sqlalchemy import BigInteger, Column, Engine, MetaData, String, Table, create_engine, insert

from incentive_fleet.brokers.contract import Publisher
from incentive_fleet.brokers.registry import by_destination, destinations, open_events
from incentive_fleet.events.models import Line, OrderPlaced
from incentive_fleet.producers.adopted_outbox import add_event, outbox_table, relay_adopted
from incentive_fleet.settings import Settings

metadata = MetaData()
orders = Table(
    "shop_orders",
    metadata,
    Column("order_id", String(200), primary_key=True),
    Column("customer_id", String(200), nullable=False),
    Column("total", BigInteger, nullable=False),  # minor units
)
outbox = outbox_table(metadata, "shop_outbox")


def place_order(engine: Engine, customer_id: str, lines: list[Line]) -> str:
    """Store an order and its event in one transaction; there is no moment at which only one of them exists."""
    order_id = f"order-{uuid4()}"
    now = datetime.now(UTC)
    total = sum(line.quantity * line.unit_price for line in lines)
    placed = OrderPlaced(order_id=order_id, customer_id=customer_id, currency="EUR", placed_at=now, lines=tuple(lines))
    with engine.begin() as transaction:
        transaction.execute(insert(orders).values(order_id=order_id, customer_id=customer_id, total=total))
        add_event(transaction, outbox, placed, source="/shop/checkout", time=now)
    return order_id


def publish_outbox(engine: Engine, publisher: Publisher) -> tuple[int, int]:
    """Publish what is unpublished; a real shop runs this in a process of its own, again and again."""
    published = refused = 0
    while True:
        done = relay_adopted(engine, outbox, publisher)
        published, refused = published + done.published, refused + len(done.refused)
        for event in done.refused:
            print(f"{event.event_id} was refused ({event.reason}): {event.detail}", file=sys.stderr)
        if not done.published:
            return published, refused


def main() -> None:
    """Place some orders and publish their events."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=3)
    parser.add_argument("--to", choices=tuple(destinations()), default="rabbitmq")
    arguments = parser.parse_args()
    engine = create_engine(os.environ.get("SHOP_DATABASE_URL", "sqlite:///shop.db"))
    metadata.create_all(engine)
    tea = Line(line_id="1", sku="tea", quantity=2, unit_price=450)
    for number in range(arguments.orders):
        print(f"placed {place_order(engine, f'customer-{number}', [tea])}")
    publisher = open_events(Settings.from_environment(os.environ), by_destination(arguments.to))
    try:
        published, refused = publish_outbox(engine, publisher)
    finally:
        publisher.close()
        engine.dispose()
    print(f"published {published} events to {arguments.to}, {refused} refused")
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()
