"""Publish a first event from your own service to SNS, with AWS_REGION and what boto3 reads in the environment."""

import json
import os
import sys
from datetime import UTC, datetime
from uuid import uuid4

import boto3

order_id = sys.argv[1] if len(sys.argv) > 1 else f"order-{uuid4()}"
now = datetime.now(UTC).isoformat()
type_ = "order-placed.v1"  # queues are chosen by it
event = {
    "specversion": "1.0",
    "id": f"placed-{order_id}",  # the same on every retry: that is what makes a retry harmless
    "source": "/shop/checkout",
    "type": type_,
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

sns = boto3.client("sns", region_name=os.environ["AWS_REGION"])
name = f"{os.environ.get('INCENTIVES_PREFIX', 'incentives')}-events"
pages = sns.get_paginator("list_topics").paginate()
topics = [t["TopicArn"] for page in pages for t in page["Topics"] if t["TopicArn"].endswith(f":{name}")]
if not topics:
    sys.exit(f"There is no topic {name}: run `incentives topology apply`.")
sent = sns.publish(  # raises when SNS did not store it; returning is the confirmation
    TopicArn=topics[0],
    Message=json.dumps(event),
    MessageAttributes={"type": {"DataType": "String", "StringValue": type_}},
)
print(f"{order_id} is confirmed by SNS as {sent['MessageId']}")
