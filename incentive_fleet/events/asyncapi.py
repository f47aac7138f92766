"""The AsyncAPI 3 document of the fleet: the SNS topics and RabbitMQ exchanges that it listens to and speaks on.

The names are those of the settings' default prefix. It is a pure function of its input and talks to no broker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from incentive_fleet.events.models import TYPES
from incentive_fleet.events.notices import NOTICE_TYPES
from incentive_fleet.events.outcomes import OUTCOME_TYPES
from incentive_fleet.names import (
    TYPE_ATTRIBUTE,
    events_exchange,
    events_topic,
    outcomes_exchange,
    outcomes_topic,
)

OUT: Final = (*OUTCOME_TYPES, *NOTICE_TYPES)
CONTRACT_VERSION: Final = "1.1.0"  # of the messages, not of the program: a new type or field raises it
PREFIX: Final = "incentives"  # the settings' default
SCHEMA_FORMAT: Final = "application/schema+json;version=2020-12"
CONTENT_TYPE: Final = "application/cloudevents+json"

Document = dict[str, Any]


def asyncapi_document(schemas: Mapping[str, Document]) -> Document:
    """The document for the schemas of all types, which stand beside it as files named after their type."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "The incentive fleet",
            "version": CONTRACT_VERSION,
            "description": (
                "Order events come in, incentives are applied, reversed and reissued, outcomes go out. Every message "
                "is a CloudEvent 1.0 in structured JSON. Delivery is at least once in both directions: (source, id) "
                "tells a repeat. A body may also come wrapped in the SNS notification envelope."
            ),
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {
            "eventsTopic": _sns(events_topic(PREFIX), "Events in, by SNS.", TYPES),
            "eventsExchange": _amqp(events_exchange(PREFIX), "Events in, by RabbitMQ.", TYPES),
            "outcomesTopic": _sns(outcomes_topic(PREFIX), "Outcomes and notices out, by SNS.", OUT),
            "outcomesExchange": _amqp(outcomes_exchange(PREFIX), "Outcomes and notices out, by RabbitMQ.", OUT),
        },
        "operations": {
            "receiveEventsFromTopic": _operation("receive", "eventsTopic", TYPES),
            "receiveEventsFromExchange": _operation("receive", "eventsExchange", TYPES),
            "sendOutcomesToTopic": _operation("send", "outcomesTopic", OUT),
            "sendOutcomesToExchange": _operation("send", "outcomesExchange", OUT),
        },
        "components": {"messages": {type: _message(type, schema) for type, schema in schemas.items()}},
    }


def _sns(topic: str, description: str, types: Iterable[str]) -> Document:
    return {
        "address": topic,
        "description": f"{description} Its message attribute `{TYPE_ATTRIBUTE}` is the type; filters read it.",
        "messages": _references(types),
        "bindings": {"sns": {"name": topic, "ordering": {"type": "standard"}}},
    }


def _amqp(exchange: str, description: str, types: Iterable[str]) -> Document:
    return {
        "address": exchange,
        "description": f"{description} The routing key is the event's type.",
        "messages": _references(types),
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": exchange, "type": "topic", "durable": True, "autoDelete": False, "vhost": "/"},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _references(types: Iterable[str]) -> Document:
    return {type: {"$ref": f"#/components/messages/{type}"} for type in types}


def _operation(action: str, channel: str, types: Iterable[str]) -> Document:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{type}"} for type in types],
    }


def _message(type: str, schema: Document) -> Document:
    return {
        "name": type,
        "title": type,
        "summary": schema["description"],
        "contentType": CONTENT_TYPE,
        "payload": {"schemaFormat": SCHEMA_FORMAT, "schema": {"$ref": f"./{type}.schema.json"}},
    }
