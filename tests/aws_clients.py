"""Clients of SQS, SNS and CloudWatch beside the product's own, for what a test prepares and looks at."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import boto3

from incentive_fleet.embedded.aws import REGION

_making = threading.Lock()


def aws_client(service: str, endpoint_url: str | None) -> Any:
    """Thread-safe, as the session of which it is made is not."""
    with _making:
        return _session().client(service, endpoint_url=endpoint_url)


@cache
def _session() -> Any:
    """One for all: what it knows of the services takes longer to read than a client to make."""
    return boto3.session.Session("test", "test", region_name=REGION)
