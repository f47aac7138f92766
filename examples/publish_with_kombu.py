"""Publish a first event from your own service to RabbitMQ. INCENTIVES_RABBITMQ_URL comes from the environment."""

import os
import sys
from datetime import UTC, datetime
from uuid import uuid4

from kombu import Connection

order_id = sys.argv[1] if len(sys.argv) > 1 else f"order-{uuid4()}"
now = datetime.now(UTC).isoformat()
event = {
    "specversion": "1.0",
    "id": f"placed-{order_id}",  # the same on every retry: that is what makes a retry harmless
    "source": "/shop/checkout",
    "type": "order-placed.v1",
    "time": now,
    "subject": order_id,
    "datacontenttype": "application/json",
    "data": {
        "order_id": order_id,
        "customer_id": "customer-1",
        "currency": "EUR",
        "placed_at": now,
        "lines": [{"line_id": "1", "sku": "tea", "quantity": 2, "unit_price": 450}],
        "coupons": ["WELCOME10"],
    },
}

unroutable = []
# Without confirm_publish, publish() returns before the broker has stored anything.
with Connection(os.environ["INCENTIVES_RABBITMQ_URL"], transport_options={"confirm_publish": True}) as connection:
    producer = connection.Producer(serializer="json", on_return=lambda *returned: unroutable.append(returned))
    producer.publish(  # raises when the exchange is missing or the broker did not confirm in time
        event,
        exchange=f"{os.environ.get('INCENTIVES_PREFIX', 'incentives')}.events",
        routing_key=event["type"],  # queues are chosen by this
        mandatory=True,  # else an event that no queue takes is dropped, and confirmed
        delivery_mode=2,  # persistent
        message_id=event["id"],
        confirm_timeout=30,
    )
if unroutable:  # returned ahead of the confirm, so it is known by now
    sys.exit(f"No queue took {order_id}: {unroutable[0][0]}")
print(f"{order_id} is confirmed by RabbitMQ")
