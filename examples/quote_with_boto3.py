"""Ask over SQS what a basket would get, and wait: python quote_with_boto3.py URL_OF_YOUR_REPLY_QUEUE < quote_request.json."""

import json
import os
import sys
from datetime import UTC, datetime, timedelta

import boto3

event, sqs = json.load(sys.stdin), boto3.client("sqs", region_name=os.environ["AWS_REGION"])
until = datetime.now(UTC) + timedelta(seconds=float(os.environ.get("PATIENCE_S", "5")))  # then go on without
texts = {"reply_to": sys.argv[1], "correlation_id": event["id"], "expires_at": until.isoformat()}
attributes = {name: {"DataType": "String", "StringValue": text} for name, text in texts.items()}
requests = sqs.get_queue_url(QueueName=f"{os.environ.get('INCENTIVES_PREFIX', 'incentives')}-quote-requested")
sqs.send_message(QueueUrl=requests["QueueUrl"], MessageBody=json.dumps(event), MessageAttributes=attributes)
while datetime.now(UTC) < until:  # a queue of this process alone: whatever else lies there is late and for nobody
    found = sqs.receive_message(QueueUrl=sys.argv[1], WaitTimeSeconds=1, MessageAttributeNames=["correlation_id"])
    for message in found.get("Messages", []):
        sqs.delete_message(QueueUrl=sys.argv[1], ReceiptHandle=message["ReceiptHandle"])
        if message["MessageAttributes"]["correlation_id"]["StringValue"] == event["id"]:
            answer = json.loads(message["Body"])
            print(json.dumps(answer.get("data", answer), indent=2))
            sys.exit("error" in answer)
sys.exit("No quote: nobody answered in time")
