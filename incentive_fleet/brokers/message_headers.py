"""How a message carries its history: the names and texts of the headers (message attributes on SQS) that we put on it.

Pure. The same headers everywhere, so that whoever collects dead letters reads both brokers alike. The failure is one
JSON header, for SQS allows ten attributes in all and the sender's own count among them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Final

from incentive_fleet.brokers.messages import DeadLetter, Delivery, Failure

# Travels with a replayed message, "<dead letter's id>.<number of the replay>", and comes back with it should it fail.
REPLAY: Final = "fleet-replay"
OURS: Final = "fleet-"  # every header that we put on a message begins so; a replay starts without them
REASON: Final = "fleet-reason"
DETAIL: Final = "fleet-detail"
SOURCE_QUEUE: Final = "fleet-source-queue"
MESSAGE_ID: Final = "fleet-message-id"  # the id that the message had when it was given up
FAILURE: Final = "fleet-failure"
LEFT_OUT: Final = "fleet-left-out"  # what of the sender's, or of ours, did not fit beside the rest

DETAIL_CHARACTERS: Final = 1_000
TRACEBACK_CHARACTERS: Final = 8_000  # headers share AMQP's frame of 128 KiB and SQS's bound on a message
MESSAGE_CHARACTERS: Final = 2_000
NAME_CHARACTERS: Final = 100  # of an error's class or a host
FAILURE_BYTES: Final = 32_768
LEFT_OUT_BYTES: Final = 250
ATTEMPTS_MAX: Final = 1_000_000  # far beyond the retries that the settings allow


def of_failure(failure: Failure, most_bytes: int = FAILURE_BYTES) -> str:
    """The failure as one JSON text in ASCII, its long parts shortened until it is no longer than `most_bytes`: a message's
    beginning, a traceback's end. What is left without them, some 1,400 bytes at the most, it always has."""
    most_bytes = min(most_bytes, FAILURE_BYTES)
    times = {"first_at": failure.first_at.isoformat(), "last_at": failure.last_at.isoformat()}
    names = {"error_class": failure.error_class[:NAME_CHARACTERS], "host": failure.host[:NAME_CHARACTERS]}
    message, traceback = MESSAGE_CHARACTERS, TRACEBACK_CHARACTERS
    while True:
        long = {"message": failure.message[:message], "traceback": failure.traceback[-traceback:] if traceback else ""}
        text = json.dumps(asdict(failure) | times | names | long)
        if len(text) <= most_bytes or not (message or traceback):
            return text
        message, traceback = message // 2, traceback // 2


def of_left_out(names: Sequence[str]) -> str:
    """Which parts were left out, the first of them by name, in 250 bytes at the most."""
    encoded = ", ".join(names).encode("utf-8", "replace")
    if len(encoded) <= LEFT_OUT_BYTES:
        return encoded.decode()
    end = f"… ({len(names)} in all)"
    return encoded[: LEFT_OUT_BYTES - len(end.encode())].decode("utf-8", "ignore") + end


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


def of_dead_letter(delivery: Delivery, disposition: DeadLetter, failure_bytes: int = FAILURE_BYTES) -> dict[str, str]:
    """The headers of a dead letter, most needed first; none is empty, which SQS would refuse."""
    headers = {
        REASON: disposition.reason,
        SOURCE_QUEUE: delivery.queue,
        DETAIL: disposition.detail[:DETAIL_CHARACTERS],
        MESSAGE_ID: delivery.message_id,
    }
    failure = disposition.failure or delivery.failure
    if failure is not None:
        headers[FAILURE] = of_failure(failure, failure_bytes)
    return {name: value for name, value in headers.items() if value}


def least_of(delivery: Delivery, disposition: DeadLetter) -> dict[str, str]:
    """The least that a dead letter carries: why, and whence."""
    return {REASON: disposition.reason, SOURCE_QUEUE: delivery.queue}
