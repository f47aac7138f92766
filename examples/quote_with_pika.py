"""Ask over RabbitMQ what a basket would get, and wait a moment. INCENTIVES_RABBITMQ_URL comes from the environment."""

import json
import os
import sys
import time
from datetime import UTC, datetime
from uuid import uuid4

import pika

PATIENCE_S = float(os.environ.get("PATIENCE_S", "2"))  # what your customer will wait; then go on without
quote_id, now, type_ = f"quote-{uuid4()}", datetime.now(UTC).isoformat(), "incentives-quote-requested.v1"
lines = [{"line_id": "1", "sku": "tea", "quantity": 2, "unit_price": 450}]
asked = {"quote_id": quote_id, "customer_id": "customer-1", "currency": "EUR", "at": now, "lines": lines}
event = {"specversion": "1.0", "id": quote_id, "source": "/shop/checkout", "type": type_, "subject": quote_id}
event |= {"time": now, "data": asked | {"coupons": ["WELCOME10"], "credit_requested": 500}}

answers: list[dict[str, object]] = []
with pika.BlockingConnection(pika.URLParameters(os.environ["INCENTIVES_RABBITMQ_URL"])) as connection:
    channel, direct = connection.channel(), "amq.rabbitmq.reply-to"  # to this channel, without a queue
    channel.basic_consume(direct, lambda _c, _m, _p, body: answers.append(json.loads(body)), auto_ack=True)
    about = pika.BasicProperties(reply_to=direct, correlation_id=quote_id, expiration=str(round(PATIENCE_S * 1_000)))
    channel.basic_publish(
        f"{os.environ.get('INCENTIVES_PREFIX', 'incentives')}.events", type_, json.dumps(event), about
    )
    until = time.monotonic() + PATIENCE_S
    while not answers and (left_s := until - time.monotonic()) > 0:
        connection.process_data_events(time_limit=left_s)
if not answers or "error" in answers[0]:
    sys.exit(f"No quote: {answers[0]['error'] if answers else 'nobody answered in time'}")
print(json.dumps(answers[0]["data"], indent=2))
