"""A message's body to an Event and back: CloudEvents 1.0 as structured JSON, raw or in an SNS notification (rules 2).

`decode` raises Malformed and nothing else, whatever the bytes are. It never looks at a clock, a database or another
event, so the same bytes always give the same Event. Raw is told from wrapped by `specversion`: a document that has it
is a CloudEvent; one that lacks it and has `Type` "Notification" is what SNS makes when raw delivery is off, and its
`Message` is the CloudEvent's text. CloudEvents may not name an attribute `Type`, so nothing can be both.

`data_base64` in place of `data`, which libraries write that take data for bytes, is read as the JSON that it holds.
`time` and `traceparent` are kept as they came: no rule uses the first, and a trace that cannot be read is not worth an
order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from incentive_fleet.errors import Malformed
from incentive_fleet.events.data_base64 import opened
from incentive_fleet.events.document import decode_text, parse_json, shown
from incentive_fleet.events.envelope import SPECVERSION, Envelope
from incentive_fleet.events.facts import NO_ORDER, fact_of, model_of_fact, order_of
from incentive_fleet.events.foreign import what_it_is
from incentive_fleet.events.models import (
    QUOTE_TYPE,
    TYPE_OF,
    TYPES,
    CreditGrantRequested,
    DeliveryCompleted,
    EventData,
    Line,
    OrderFinalized,
    OrderPlaced,
    OrderRefunded,
    QuoteRequested,
    RefundLine,
    UndeliveredLine,
    subject_of,
)
from incentive_fleet.events.plain import read_plain
from incentive_fleet.events.reasons import Reason
from incentive_fleet.events.refusals import from_validation
from incentive_fleet.events.times import check_time, format_time

Model = TypeVar("Model", bound=BaseModel)


class Event(NamedTuple):
    """A valid event. (`source`, `id`) is its identity, (`order_id`, `fact`) that of what it says, `digest` its content."""

    source: str
    id: str
    type: str
    time: str  # the envelope's, as it was written: any RFC 3339 time; "" when read from the ledger, for no rule uses it
    traceparent: str | None
    data: EventData
    order_id: str  # "" for a grant
    fact: str  # its name within the order: 'placing', 'final-basket', 'cancelling', 'delivery', 'refund:<id>', 'grant:<key>'
    happened_at: datetime  # in the world, as the data says
    canonical: bytes  # the validated data: defaults filled in, absent optionals left out, UTC, fixed order, UTF-8
    digest: bytes  # SHA-256 of type, line feed, canonical


_ANY_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)
# The names of our types without their versions.
_NAMES: Final = frozenset(type_.rpartition(".")[0] for type_ in (*TYPES, QUOTE_TYPE))
# Which field of a type's data holds objects, and of which model.
_ITEMS: Final[dict[type[BaseModel], tuple[str, type[BaseModel]]]] = {
    OrderPlaced: ("lines", Line),
    OrderFinalized: ("lines", Line),
    QuoteRequested: ("lines", Line),
    OrderRefunded: ("lines", RefundLine),
    DeliveryCompleted: ("undelivered", UndeliveredLine),
}
_OPTIONAL: Final[dict[type[BaseModel], tuple[str, ...]]] = {
    model: tuple(
        name for name, field in model.model_fields.items() if not field.is_required() and field.default is None
    )
    for model in (Envelope, *TYPES.values(), QuoteRequested, Line, RefundLine, UndeliveredLine)
}


def decode(body: bytes) -> Event:
    """The event in a message's body. Raises Malformed, with a code of reasons.Reason; a retry does not help."""
    plain = read_plain(body)
    return _event(*plain) if plain else decode_strictly(body)


def decode_strictly(body: bytes) -> Event:
    """As `decode`, one check after the other: for what cannot be read in one pass, and for finding the first fault."""
    document, text = _cloud_event(decode_text(body))
    model: type[EventData] = _model_of(document)
    envelope, data = _checked(document, text, model)
    named = "grant_key" if isinstance(data, CreditGrantRequested) else "order_id"
    _same_subject(envelope, subject_of(data), named)
    return _event(envelope, data)


def decode_quote(body: bytes) -> tuple[QuoteRequested, str, str | None]:
    """The quote request in a message's body, its source and its traceparent. Raises Malformed; a retry does not help."""
    document, text = _cloud_event(decode_text(body))
    if (type_ := _type_of(document)) != QUOTE_TYPE:
        raise _not_known(type_, (QUOTE_TYPE,))
    envelope, data = _checked(document, text, QuoteRequested)
    _same_subject(envelope, data.quote_id, "quote_id")
    return data, envelope.source, envelope.traceparent


def _checked(document: dict[str, Any], text: str, model: type[Model]) -> tuple[Envelope, Model]:
    if "data_base64" in document:
        document, data_text = opened(document)
        text += data_text
    if "null" in text:
        _refuse_nulls(document, model)
    envelope = _validated(Envelope, document, "")
    if "data" not in document:
        raise Malformed(Reason.MISSING_FIELD, "data is missing")
    return envelope, _validated(model, document["data"], "data")


def _same_subject(envelope: Envelope, subject: str, named: str) -> None:
    if envelope.subject != subject:
        raise Malformed(
            Reason.SUBJECT_MISMATCH, f"subject is {shown(envelope.subject)}, data.{named} is {shown(subject)}"
        )


def encode_event(source: str, id: str, data: EventData, time: datetime | str, traceparent: str | None = None) -> bytes:
    """The body of a CloudEvent with this data, for producers, examples and tests; `decode` gives it back.

    `time` is the envelope's: aware and of the years 1970 to 2199, or a text of RFC 3339 that is kept as it is. Raises
    Malformed when the id, source, time, traceparent or data break a bound.
    """
    head: dict[str, str] = {
        "specversion": SPECVERSION,
        "id": id,
        "source": source,
        "type": TYPE_OF[type(data)],
        "subject": subject_of(data),
        "time": time if isinstance(time, str) else format_time(check_time(time)),
        "datacontenttype": "application/json",
    }
    if traceparent is not None:
        head["traceparent"] = traceparent
    front = json.dumps(head, ensure_ascii=False, separators=(",", ":"))
    body = b"".join((front[:-1].encode("utf-8", "surrogatepass"), b',"data":', canonical_json(data), b"}"))
    decode(body)  # What leaves here is valid by the only judge there is.
    return body


def canonical_json(data: EventData) -> bytes:
    """The data as the digest sees it; reading it with `from_canonical` gives equal data."""
    return data.__pydantic_serializer__.to_json(data, exclude_none=True)


def from_canonical(type: str, canonical: bytes) -> EventData:
    """The data that `Event.canonical` was made from. KeyError or ValidationError for anything else."""
    return TYPES[type].model_validate_json(canonical)


def stored_event(fact: str, source: str, id: str, digest: bytes, traceparent: str | None, canonical: bytes) -> Event:
    """The event that a stored fact came from. ValueError or ValidationError for what no release stored."""
    model = model_of_fact(fact)
    data = model.model_validate_json(canonical)
    _, happened_at = fact_of(data)
    order_id = order_of(data)
    return Event(source, id, TYPE_OF[model], "", traceparent, data, order_id, fact, happened_at, canonical, digest)


def digest_of(type: str, canonical: bytes) -> bytes:
    """SHA-256 over the type and the canonical data; no type holds a line feed, so the two cannot run together."""
    return sha256(b"%b\n%b" % (type.encode(), canonical)).digest()


def grant_digest(
    key: str, customer_id: str, currency: str, amount: int, campaign_id: str, expires_at: datetime | None
) -> bytes:
    """The digest of a grant that came by file or command, as its event would have it (rules 2.3)."""
    data = CreditGrantRequested.model_construct(
        grant_key=key,
        customer_id=customer_id,
        currency=currency,
        amount=amount,
        campaign_id=campaign_id,
        requested_at=_ANY_TIME,  # not in the digest
        expires_at=None if expires_at is None else expires_at.astimezone(UTC),
    )
    return digest_of(TYPE_OF[CreditGrantRequested], _digested(data))


def _event(envelope: Envelope, data: EventData) -> Event:
    canonical = digested = canonical_json(data)
    fact, happened_at = fact_of(data)
    order_id = order_of(data)
    if order_id == NO_ORDER:
        digested = _digested(data)
    return Event(
        envelope.source,
        envelope.id,
        envelope.type,
        envelope.time,
        envelope.traceparent,
        data,
        order_id,
        fact,
        happened_at,
        canonical,
        digest_of(envelope.type, digested),
    )


def _digested(grant: EventData) -> bytes:
    """Of a grant only what a file or a command says too: by whichever way it comes, its digest is one (rules 2.3)."""
    return grant.__pydantic_serializer__.to_json(grant, exclude={"requested_at", "reason"}, exclude_none=True)


def _cloud_event(text: str) -> tuple[dict[str, Any], str]:
    document = parse_json(text)
    if isinstance(document, dict) and "specversion" not in document and document.get("Type") == "Notification":
        message = document.get("Message")
        if not isinstance(message, str):
            found = shown(message) if "Message" in document else "missing"
            raise Malformed(Reason.BAD_SNS_ENVELOPE, f"Message of the SNS notification is {found}: a string is needed")
        text = message
        document = parse_json(text)
    if isinstance(document, dict) and "specversion" in document:
        return document, text
    missing = "specversion is missing" if isinstance(document, dict) else "the document is not an object"
    known = what_it_is(document)
    raise Malformed(Reason.NOT_A_CLOUD_EVENT, f"{missing}: this is {known}" if known else missing)


def _model_of(document: dict[str, Any]) -> type[EventData]:
    type_ = _type_of(document)
    model = TYPES.get(type_)
    if model is None:
        raise _not_known(type_, TYPES)
    return model


def _type_of(document: dict[str, Any]) -> str:
    version = document["specversion"]
    if version != SPECVERSION:
        raise Malformed(Reason.UNKNOWN_SPECVERSION, f'specversion is {shown(version)}: "1.0" is needed')
    if "type" not in document:
        raise Malformed(Reason.MISSING_FIELD, "type is missing")
    type_ = document["type"]
    if not isinstance(type_, str):
        reason = Reason.NULL_FIELD if type_ is None else Reason.WRONG_TYPE
        raise Malformed(reason, f"type is {shown(type_)}: a text is needed")
    return type_


def _not_known(type_: str, known: Iterable[str]) -> Malformed:
    if type_ in TYPES or type_ == QUOTE_TYPE:
        return Malformed(Reason.WRONG_QUEUE, f"type is {shown(type_)}: it has a queue of its own")
    ours = type_.rpartition(".")[0] in _NAMES
    reason = Reason.UNKNOWN_TYPE_VERSION if ours else Reason.UNKNOWN_TYPE
    return Malformed(reason, f"type is {shown(type_)}: known are {', '.join(known)}")


def _validated(model: type[Model], value: object, where: str) -> Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise from_validation(error, where) from None


def _refuse_nulls(document: dict[str, Any], model: type[BaseModel]) -> None:
    """In Python None stands for an absent optional field, so the models accept it; on the wire null is malformed."""
    for where, value, owner in _objects(document, model):
        for name in _OPTIONAL[owner]:
            if name in value and value[name] is None:
                raise Malformed(Reason.NULL_FIELD, f"{where}{name} is null: leave an optional field out")


def _objects(document: dict[str, Any], model: type[BaseModel]) -> Iterator[tuple[str, dict[str, Any], type[BaseModel]]]:
    yield "", document, Envelope
    data = document.get("data")
    if not isinstance(data, dict):
        return
    yield "data.", data, model
    for owner, (field, item) in _ITEMS.items():
        if owner is model and isinstance(data.get(field), list):
            for index, entry in enumerate(data[field]):
                if isinstance(entry, dict):
                    yield f"data.{field}[{index}].", entry, item
