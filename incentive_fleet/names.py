"""What topics and exchanges are called, as pure functions of the settings' prefix. It never talks to a broker.

Producers publish to these names and the topology declares them; neither may import the other, so they meet here. SNS
allows letters, digits, hyphens and underscores in a topic's name, up to 256; AMQP likes dots between the words.
"""

from __future__ import annotations

TYPE_ATTRIBUTE = "type"  # the SNS message attribute that filter policies read; RabbitMQ routes by the same value
# How a quote is asked for on SQS and SNS; RabbitMQ has properties of these names, and `expiration` for the last.
REPLY_ATTRIBUTE, CORRELATION_ATTRIBUTE, EXPIRES_ATTRIBUTE = "reply_to", "correlation_id", "expires_at"


def events_topic(prefix: str) -> str:
    """The SNS topic that order systems publish to."""
    return f"{prefix}-events"


def events_exchange(prefix: str) -> str:
    """The RabbitMQ topic exchange that order systems publish to; the routing key is the event's type."""
    return f"{prefix}.events"


def outcomes_topic(prefix: str) -> str:
    """The SNS topic that the relay publishes outcomes to."""
    return f"{prefix}-outcomes"


def outcomes_exchange(prefix: str) -> str:
    """The RabbitMQ topic exchange that the relay publishes outcomes to; the routing key is the outcome's type."""
    return f"{prefix}.outcomes"
