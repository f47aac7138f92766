"""Says what a message is that is no structured CloudEvent, for the detail of its reason. It refuses nothing and never raises.

Somebody who subscribed a queue to the wrong thing, or set a client to the wrong mode, sees in the dead letter what came.
Known are the envelopes of services and libraries that write to SNS, SQS and RabbitMQ, each by names that its owner
documents, and CloudEvents in binary mode: by their headers, or by a body that is the data of one of our types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from incentive_fleet.events.document import shown
from incentive_fleet.events.models import QUOTE_TYPE, TYPES, QuoteRequested

_SNS: Final = {
    "Notification": "an SNS notification inside another: let the first topic deliver raw messages",
    "SubscriptionConfirmation": "an SNS subscription confirmation: whoever owns the queue has to confirm it",
    "UnsubscribeConfirmation": "an SNS unsubscribe confirmation: the queue's subscription was removed",
}
_POINTER: Final = "an S3 pointer of the SQS or SNS extended client: send bodies of this size by another way than S3"
_BATCH: Final = "a batch of CloudEvents: send each event as a message of its own"
# In this order, by names that an object must have.
_NAMES: Final[tuple[tuple[frozenset[str], str], ...]] = tuple(
    (frozenset(names.split()), meaning)
    for names, meaning in (
        (
            "detail-type source detail",
            "an EventBridge event: send the CloudEvent alone, by an input path such as $.detail",
        ),
        ("s3bucketname s3key", _POINTER),
        ("service event bucket", "a test event of S3 notifications"),
        ("alarmname newstatevalue", "a CloudWatch alarm"),
        ("awslogs", "CloudWatch logs"),
        ("receipthandle body", "an SQS message as a client shows it: its body alone is the event"),
        ("messagetype message messageid", "a MassTransit envelope: send raw JSON"),
        ("eventtype eventtime dataversion", "an Event Grid event: send it in the CloudEvents schema"),
        ("message subscription", "a Pub/Sub push message"),
        ("payload schema", "a record of a Kafka connector with its schema: its payload alone is the event"),
        ("op source after", "a change event of Debezium"),
        ("cloudeventsversion eventid", "a CloudEvent of version 0.1"),
    )
)
# How a CloudEvent's type is called in the headers of the protocol bindings.
_TYPE_HEADERS: Final = ("ce-type", "ce_type", "cloudevents:type", "cloudevents_type", "cloudevents-type")
ENVELOPE: Final = frozenset(
    {"id", "source", "type", "data", "data_base64"}
)  # of a CloudEvent that only lacks its version
_BINARY: Final = "a CloudEvent in binary mode: send structured JSON, with all attributes in the body"


def what_it_is(document: object) -> str:
    """The kind of thing that a JSON document without `specversion` is, as a sentence's part; "" where it is unknown."""
    if isinstance(document, list):
        return _list(document)
    if not isinstance(document, dict):
        return ""
    sns = document.get("Type")
    if isinstance(sns, str) and sns in _SNS:
        return _SNS[sns]
    records = document.get("Records")
    if isinstance(records, list) and records and isinstance(records[0], dict):
        return _records(records[0])
    names = {name.lower() for name in document}
    for known, meaning in _NAMES:
        if known <= names:
            return meaning
    return _data(document)


def binary_mode(headers: Mapping[str, str]) -> str:
    """A sentence for headers that carry a CloudEvent's attributes beside the body; "" for all others."""
    for name, value in headers.items():
        if name.lower() in _TYPE_HEADERS:
            return f"by its header {name} of {shown(value)} it is {_BINARY}"
    return ""


def _list(items: list[Any]) -> str:
    if len(items) == 2 and isinstance(items[0], str) and "S3Pointer" in items[0]:
        return _POINTER
    if not items or not isinstance(items[0], dict):
        return ""
    if "specversion" in items[0]:
        return _BATCH
    first = what_it_is(items[0])
    return f"a list whose first entry is {first}" if first else ""


def _records(first: dict[str, Any]) -> str:
    source = first.get("eventSource", first.get("EventSource"))
    if source == "aws:s3":
        return "an S3 event notification"
    return f"a list of records of {shown(source)}" if isinstance(source, str) else ""


def _data(document: dict[str, Any]) -> str:
    if not {"order_id", "grant_key", "campaign_id", "quote_id"} & document.keys() or ENVELOPE & document.keys():
        return ""
    # Complete or not: the type that explains most of its fields, of several the one that has fewest besides.
    models = {**TYPES, QUOTE_TYPE: QuoteRequested}
    held = {type_: len(document.keys() & model.model_fields.keys()) for type_, model in models.items()}
    type_ = max(held, key=lambda name: (held[name], -len(models[name].model_fields)))
    return f"what looks like the data of {type_} without its envelope, as {_BINARY}" if held[type_] > 1 else ""
