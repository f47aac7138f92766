"""Ask over SQS what a basket would get, and wait a moment: python quote_with_boto3.py URL_OF_YOUR_REPLY_QUEUE."""

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import boto3

PATIENCE_S = float(os.environ.get("PATIENCE_S", "5"))  # what your customer will wait; then go on without
reply_queue, quote_id, now = sys.argv[1], f"quote-{uuid4()}", datetime.now(UTC)
lines = [{"line_id": "1", "sku": "tea", "quantity": 2, "unit_price": 450}]
asked = {"quote_id": quote_id, "customer_id": "customer-1", "currency": "EUR", "at": now.isoformat(), "lines": lines}
event = {"specversion": "1.0", "id": quote_id, "source": "/shop/checkout", "type": "incentives-quote-requested.v1"}
event |= {"subject": quote_id, "time": now.isoformat(), "data": asked | {"coupons": ["WELCOME10"]}}

sqs = boto3.client("sqs", region_name=os.environ["AWS_REGION"])
requests = sqs.get_queue_url(QueueName=f"{os.environ.get('INCENTIVES_PREFIX', 'incentives')}-quote-requested")[
    "QueueUrl"
]
expires_at = (now + timedelta(seconds=PATIENCE_S)).isoformat()
texts = {"reply_to": reply_queue, "correlation_id": quote_id, "expires_at": expires_at}
attributes = {name: {"DataType": "String", "StringValue": text} for name, text in texts.items()}
sqs.send_message(QueueUrl=requests, MessageBody=json.dumps(event), MessageAttributes=attributes)
until = time.monotonic() + PATIENCE_S
while time.monotonic() < until:  # a queue of this process alone: whatever else lies there is late and for nobody
    found = sqs.receive_message(QueueUrl=reply_queue, WaitTimeSeconds=1, MessageAttributeNames=["correlation_id"])
    for message in found.get("Messages", []):
        sqs.delete_message(QueueUrl=reply_queue, ReceiptHandle=message["ReceiptHandle"])
        if message["MessageAttributes"]["correlation_id"]["StringValue"] == quote_id:
            answer = json.loads(message["Body"])
            sys.exit(
                f"No quote: {answer['error']}" if "error" in answer else print(json.dumps(answer["data"], indent=2))
            )
sys.exit("No quote: nobody answered in time")
