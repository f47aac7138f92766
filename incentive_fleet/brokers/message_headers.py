"""How a message carries its history: the names and texts of the headers (message attributes on SQS) that we put on it.

Pure. The same five headers everywhere, so that whoever collects dead letters reads both brokers alike. The failure is one
JSON header, for SQS allows ten attributes in all and the sender's own count among them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Final

from incentive_fleet.brokers.contract import DeadLetter, Delivery, Failure

REASON: Final = "fleet-reason"
DETAIL: Final = "fleet-detail"
SOURCE_QUEUE: Final = "fleet-source-queue"
MESSAGE_ID: Final = "fleet-message-id"  # the id that the message had when it was given up
FAILURE: Final = "fleet-failure"

DETAIL_CHARACTERS: Final = 1_000
TRACEBACK_CHARACTERS: Final = 8_000  # headers share AMQP's frame of 128 KiB and SQS's bound on a message
MESSAGE_CHARACTERS: Final = 2_000
ATTEMPTS_MAX: Final = 1_000_000  # far beyond the retries that the settings allow


def of_failure(failure: Failure) -> str:
    """The failure as one JSON text, its long parts shortened: a message's beginning, a traceback's end."""
    values = asdict(failure) | {
        "message": failure.message[:MESSAGE_CHARACTERS],
        "traceback": failure.traceback[-TRACEBACK_CHARACTERS:],
        "first_at": failure.first_at.isoformat(),
        "last_at": failure.last_at.isoformat(),
    }
    return json.dumps(values)


def failure_in(headers: Mapping[str, str]) -> Failure | None:
    """The failure that the headers carry; None when they carry none, or something that we did not write."""
    text = headers.get(FAILURE)
    if text is None:
        return None
    try:
        values = json.loads(text)
        failure = Failure(
            attempts=int(values["attempts"]),
            error_class=str(values["error_class"]),
            message=str(values["message"]),
            traceback=str(values["traceback"]),
            first_at=datetime.fromisoformat(values["first_at"]),
            last_at=datetime.fromisoformat(values["last_at"]),
            host=str(values["host"]),
        )
    # Anybody may publish a header of this name, endless numbers and endless nesting included; it is a count, not the truth.
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    ours = 1 <= failure.attempts <= ATTEMPTS_MAX and failure.first_at.tzinfo and failure.last_at.tzinfo
    return failure if ours else None


def of_dead_letter(delivery: Delivery, outcome: DeadLetter) -> dict[str, str]:
    """The headers of a dead letter, most needed first; none is empty, which SQS would refuse."""
    headers = {
        REASON: outcome.reason,
        SOURCE_QUEUE: delivery.queue,
        DETAIL: outcome.detail[:DETAIL_CHARACTERS],
        MESSAGE_ID: delivery.message_id,
    }
    failure = outcome.failure or delivery.failure
    if failure is not None:
        headers[FAILURE] = of_failure(failure)
    return {name: value for name, value in headers.items() if value}
