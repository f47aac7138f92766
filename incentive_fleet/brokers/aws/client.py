"""boto3 clients with bounded waits and retries, and the one place where botocore's errors become ours.

It never retries by itself beyond what botocore is told to, and it never hides a call of ours that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from incentive_fleet.addresses import without_logins
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient

CONNECT_S: Final = 5
READ_S: Final = 30  # longer than the longest poll, 20 s
MISSING_QUEUE: Final = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
MISSING_SNS: Final = frozenset({"NotFound", "NotFoundException"})


def _config(connections: int) -> Config:
    # One quiet second try covers a dropped keep-alive connection; longer trouble is the caller's to pause for.
    return Config(
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        retries={"total_max_attempts": 2, "mode": "standard"},
        max_pool_connections=connections,
    )


def sqs_client(settings: Settings, connections: int = 10) -> SQSClient:
    """A client for SQS; thread-safe. Raises SettingsError without a region, BrokerUnavailable without a usable endpoint."""
    region = settings.need_aws_region()
    with available():
        # A session of its own, for boto3's default session is not safe to share between threads.
        return boto3.session.Session(region_name=region).client(
            "sqs", endpoint_url=settings.aws_endpoint_url, config=_config(connections)
        )


def sns_client(settings: Settings) -> SNSClient:
    """A client for SNS; thread-safe. Raises SettingsError without a region, BrokerUnavailable without a usable endpoint."""
    region = settings.need_aws_region()
    with available():
        return boto3.session.Session(region_name=region).client(
            "sns", endpoint_url=settings.aws_endpoint_url, config=_config(2)
        )


@contextmanager
def available() -> Iterator[None]:
    """Turn what botocore raises into BrokerUnavailable: no connection, throttled, 5xx, expired token, no such queue.

    A refusal (missing queue, missing permission) is one of them: it ends when an operator acts, and pausing loses nothing.
    Only a call that botocore itself finds malformed is let through, for that is a bug of ours.
    """
    try:
        yield
    except ParamValidationError:
        raise
    except (BotoCoreError, ClientError) as error:
        raise BrokerUnavailable(f"SNS/SQS: {without_logins(str(error))}") from error


def error_code(error: ClientError) -> str:
    """The service's stable code of an error, such as AWS.SimpleQueueService.NonExistentQueue."""
    return str(error.response.get("Error", {}).get("Code", ""))
