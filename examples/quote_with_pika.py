"""Ask over RabbitMQ what a basket would get, and wait a moment: python quote_with_pika.py < quote_request.json."""

import json
import os
import sys
import time

import pika

PATIENCE_S = float(os.environ.get("PATIENCE_S", "2"))  # what your customer will wait; then go on without
event, answers = json.load(sys.stdin), list[dict[str, object]]()
exchange = f"{os.environ.get('INCENTIVES_PREFIX', 'incentives')}.events"
with pika.BlockingConnection(pika.URLParameters(os.environ["INCENTIVES_RABBITMQ_URL"])) as connection:
    channel, direct = connection.channel(), "amq.rabbitmq.reply-to"  # to this channel, without a queue
    channel.basic_consume(direct, lambda _c, _m, _p, body: answers.append(json.loads(body)), auto_ack=True)
    about = pika.BasicProperties(reply_to=direct, correlation_id=event["id"], expiration=f"{PATIENCE_S * 1_000:.0f}")
    channel.basic_publish(exchange, event["type"], json.dumps(event), about)
    until = time.monotonic() + PATIENCE_S
    while not answers and (left_s := until - time.monotonic()) > 0:
        connection.process_data_events(time_limit=left_s)
if not answers:
    sys.exit("No quote: nobody answered in time")
print(json.dumps(answers[0].get("data", answers[0]), indent=2))
sys.exit("error" in answers[0])
