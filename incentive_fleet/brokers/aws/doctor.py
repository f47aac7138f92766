"""What our queues and topics on SNS and SQS are set to and what each setting risks, for `incentives doctor`. It changes nothing.

The differences are those of `incentives topology check`, each under the code of what it endangers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from incentive_fleet.addresses import is_loopback
from incentive_fleet.brokers.aws import encryption, policies, topology
from incentive_fleet.brokers.aws.client import available, sqs_client
from incentive_fleet.brokers.aws.plan import aws_plan, sqs_queues
from incentive_fleet.brokers.topology import BACKSTOP_DELIVERIES
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.findings import NOTE, OK, RISK, UNKNOWN, Finding, Look, Question, clock_finding, look_at
from incentive_fleet.settings import Settings

RETENTION: Final = Question(
    "aws-retention",
    "MessageRetentionPeriod",
    "SQS deletes what is older: an outage of a few days loses events, and dead letters before anybody saw them.",
    "Run `incentives topology apply`: 14 days, the longest there is.",
)
VISIBILITY: Final = Question(
    "aws-visibility",
    "VisibilityTimeout",
    "Whoever receives with other tools sees messages again too early, or a killed consumer's too late.",
    "Run `incentives topology apply` with the fleet's INCENTIVES_SQS_VISIBILITY_S.",
)
REDRIVE: Final = Question(
    "aws-redrive",
    "RedrivePolicy",
    "Without it a message that kills its consumer comes for ever; with a low count good messages are buried.",
    "Run `incentives topology apply`.",
)
ENCRYPTION: Final = Question(
    "aws-encryption",
    "KmsMasterKeyId, SqsManagedSseEnabled",
    "Customers and amounts lie unencrypted, or under a key by which no topic may deliver.",
    "Run `incentives topology apply`; a key of others is taken away by whoever set it.",
)
POLICY: Final = Question(
    "aws-access-policies",
    "Policy",
    "Others may send or read, SNS may not deliver, or messages cross the network in the clear.",
    "Run `incentives topology apply`: it puts our statements beside those that are there.",
)
OPEN: Final = Question(
    "aws-open-policies",
    "Policy",
    "Anybody with an account at AWS may send events, and so spend any customer's credit, or read and delete them.",
    "Take the statement away, or give it a principal or a condition on your account.",
)
REST: Final = Question(
    "aws-topology",
    "topics, queues and subscriptions",
    "A queue or subscription that is missing or filters otherwise loses events, or cuts them off.",
    "Run `incentives topology apply`.",
)
TLS: Final = Question(
    "aws-tls",
    "AWS_ENDPOINT_URL",
    "Whoever is on the way can read customers and amounts, and send requests again.",
    "Leave it out, or name an https:// endpoint.",
)
CLOCK: Final = Question(
    "aws-clock",
    "clock against this host's",
    "AWS refuses requests that are signed minutes before or after its own time.",
    "Let NTP keep this host's clock.",
)

BY_ATTRIBUTE: Final[Mapping[str, Question]] = {
    "MessageRetentionPeriod": RETENTION,
    "VisibilityTimeout": VISIBILITY,
    "RedrivePolicy": REDRIVE,
    encryption.KEY: ENCRYPTION,
    encryption.MANAGED: ENCRYPTION,
}
POLICY_PREFIX: Final = "Policy"


def checks() -> tuple[Question, ...]:
    """Every code that `examine` may find."""
    return tuple(check for look in LOOKS for check in look.checks)


def examine(settings: Settings) -> Iterator[Finding]:
    """See contract.py."""
    yield from _differences(settings)  # what cannot be reached is told by whoever asks
    yield from look_at(LOOKS[1:], settings)


def _differences(settings: Settings) -> Iterator[Finding]:
    drift = topology.check(settings).drift
    well, told = _well(settings), set()
    for one in drift:
        check = BY_ATTRIBUTE.get(one.attribute, POLICY if one.attribute.startswith(POLICY_PREFIX) else REST)
        told.add(check.code)
        severity = NOTE if check is VISIBILITY else RISK
        yield check.found(severity, f"{one.actual}, should be {one.wanted}", setting=f"{one.attribute} of {one.name}")
    missing = any(one.attribute == "exists" for one in drift)
    for check, value in well.items():
        if check.code not in told:
            yield check.found(UNKNOWN, "not all exist") if missing else check.found(OK, value)


def _well(settings: Settings) -> Mapping[Question, str]:
    """What is said of checks without a difference."""
    attributes = aws_plan(settings).source_attributes
    return {
        RETENTION: f"{attributes['MessageRetentionPeriod']} s",
        VISIBILITY: f"{attributes['VisibilityTimeout']} s",
        REDRIVE: f"own -dlq, maxReceiveCount {BACKSTOP_DELIVERIES}",
        ENCRYPTION: settings.kms_key_id or "encrypted at rest",
        POLICY: "as declared",
        REST: "as declared",
    }


def _open(settings: Settings) -> Iterator[Finding]:
    everybody = {name: policies.open_to_everybody(text) for name, text in topology.access_policies(settings).items()}
    for name, statements in everybody.items():
        yield from (OPEN.found(RISK, said, setting=f"Policy of {name}") for said in statements)
    if not any(everybody.values()):
        yield OPEN.found(OK, "no statement lets everybody in")


def _way(settings: Settings) -> Iterator[Finding]:
    endpoint = settings.aws_endpoint_url
    url = urlsplit(endpoint or "https://")
    near = is_loopback(url.hostname or "")
    severity = OK if url.scheme == "https" else NOTE if near else RISK
    yield TLS.found(
        severity, f"{url.scheme}, {'on this host' if near else 'an endpoint of its own' if endpoint else 'AWS'}"
    )


def _clock(settings: Settings) -> Iterator[Finding]:
    client, (queue, *_) = sqs_client(settings), sqs_queues(settings)
    started, before = time.monotonic(), datetime.now(UTC)
    with available():
        there = _date(client, queue.source)
    took_s = time.monotonic() - started
    # The header cuts the fraction of its second off.
    yield clock_finding(CLOCK, (there - before).total_seconds() + 0.5 - took_s / 2, 0.5 + took_s / 2)


def _date(client: Any, queue: str) -> datetime:
    """The service's time, which it writes into every answer, a refusal too."""
    try:
        answer: Mapping[str, Any] = client.get_queue_url(QueueName=queue)
    except ClientError as error:
        answer = error.response
    said = str(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", ""))
    try:
        return parsedate_to_datetime(said)
    except ValueError:
        raise BrokerUnavailable("SQS: its answer does not say the time") from None


LOOKS: Final = (
    Look((RETENTION, VISIBILITY, REDRIVE, ENCRYPTION, POLICY, REST), _differences),
    Look((OPEN,), _open),
    Look((TLS,), _way),
    Look((CLOCK,), _clock),
)
