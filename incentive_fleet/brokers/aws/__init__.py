"""SNS and SQS: the only files that know boto3. What others call this broker is said here; parts.py opens it."""

from typing import Final

from incentive_fleet.brokers.contract import Broker

AWS: Final = Broker(
    name="aws",
    title="SNS and SQS",
    source="sqs",
    destination="sns",
    setting="aws_region",
    addresses=("aws_endpoint_url",),
)
