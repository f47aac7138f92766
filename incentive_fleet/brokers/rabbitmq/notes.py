"""What is noted on a message beside its content: how often it was delivered, and when it was published. Pure.

A sender may write anything under these names; nothing here raises for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from incentive_fleet.brokers.rabbitmq.properties import Parts, whole_number

# Set by quorum queues from the second delivery on. Since RabbitMQ 4.3 a requeueing nack raises the second alone.
DELIVERIES_SO_FAR: Final = (b"x-delivery-count", b"x-acquired-count")
NOTED_MS: Final = b"timestamp_in_ms"  # by RabbitMQ, with message_interceptors.incoming.set_header_timestamp
DELIVERIES_MOST: Final = 2**31 - 1  # no message lives to see so many; what says more was written by a sender


def sent_at(parts: Parts) -> float | None:
    """When it was published, in seconds since 1970: as the broker noted it, where it is told to, else as the publisher did."""
    noted, stamp = noted_at(parts), parts.properties.get("timestamp")
    seconds = noted or (float(int.from_bytes(stamp)) if stamp else 0.0)
    return seconds if seconds > 0 else None


def noted_at(parts: Parts) -> float | None:
    """When the broker noted that it was published, to the millisecond, where it is told to note it."""
    noted_ms = whole_number(parts.headers.get(NOTED_MS)) if parts.headers else None
    return noted_ms / 1_000 if noted_ms and noted_ms > 0 else None


def delivered_before(headers: Mapping[bytes, bytes]) -> int:
    """How often the broker says that it delivered the message before. A sender may put anything under those names, and on
    the first delivery the broker leaves it as it is."""
    if not headers:
        return 0
    return max(_count(headers.get(name)) for name in DELIVERIES_SO_FAR)


def _count(value: bytes | None) -> int:
    number = whole_number(value)
    return number if number is not None and 0 <= number <= DELIVERIES_MOST else 0
