"""Answers over RabbitMQ: through the default exchange to the queue that a request names in `reply_to`, its correlation id with it.

Answers are transient: who waits for one is there now or never. A queue that does not confirm is waited for once, and then not
again for a while. It never decides whether an address may be answered.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from incentive_fleet.brokers.messages import CONTENT_TYPE, Answered, AnswerWanted, Delivery, Message
from incentive_fleet.brokers.rabbitmq.client import open_link, parameters
from incentive_fleet.brokers.rabbitmq.confirms import Fate, Publication, Unconfirmed
from incentive_fleet.brokers.rabbitmq.copies import Encoded
from incentive_fleet.brokers.rabbitmq.direct import is_direct, looks_foreign
from incentive_fleet.brokers.rabbitmq.link import Link
from incentive_fleet.brokers.rabbitmq.notes import noted_at
from incentive_fleet.brokers.rabbitmq.posting import offer
from incentive_fleet.brokers.rabbitmq.properties import cut, join, short_text
from incentive_fleet.brokers.rabbitmq.transport import RabbitMQReceipt
from incentive_fleet.errors import Malformed
from incentive_fleet.events.reasons import Reason
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

CONFIRM_S: Final = 2.0  # for a reply queue to confirm; a live one takes milliseconds
SLOW_S: Final = 60.0  # in which a queue that took longer is not waited for
SLOW_MAX: Final = 1_000  # such queues that are remembered
WARY_S: Final = 60.0  # after RabbitMQ fell over an address, in which it is told no other that looks foreign
TRANSIENT: Final = b"\x01"  # delivery mode
EXPIRATION_DIGITS: Final = 10  # of milliseconds; RabbitMQ takes no more than 32 bits
FATES: Final = {
    Fate.TAKEN: Answered.SENT,
    Fate.RETURNED: Answered.UNROUTABLE,
    Fate.NACKED: Answered.REFUSED,
    Fate.UNKNOWN: Answered.UNCONFIRMED,
}


class RabbitMQReplies:
    """See contract.py for the promises. It connects when it first answers."""

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self._nodes = parameters(settings)
        self._stop = stop
        self._link: Link | None = None
        self._wary_until = 0.0  # monotonic
        self._slow: dict[str, float] = {}  # queue -> until when it is not waited for (monotonic)

    def asked(self, delivery: Delivery) -> AnswerWanted:
        """See contract.py. What waits past its expiration in the queue RabbitMQ drops by itself; from its arrival here, or from
        when the broker noted that it was published, we count."""
        receipt = delivery.receipt
        assert isinstance(receipt, RabbitMQReceipt)
        parts = cut(receipt.properties)
        address, expiration = _address(parts.properties.get("reply_to")), parts.properties.get("expiration")
        if expiration is None:
            return AnswerWanted(address, receipt.arrived_at, None)
        text = expiration[1:]
        if not text.isdigit() or len(text) > EXPIRATION_DIGITS:  # RabbitMQ lets none of these in
            fault = f"the property expiration is {text[:20]!r}: milliseconds are needed"
            return AnswerWanted(address, receipt.arrived_at, None, Malformed(Reason.OUT_OF_BOUNDS, fault))
        began = noted_at(parts) or receipt.arrived_at
        return AnswerWanted(address, receipt.arrived_at, began + int(text) / 1_000)

    def send(self, answers: Sequence[tuple[Delivery, Message]]) -> list[Answered]:
        """See contract.py. Each address that RabbitMQ falls over costs a connection, while all others wait."""
        wary = time.monotonic() < self._wary_until
        goes = [not (wary and looks_foreign(_address_of(delivery))) for delivery, _ in answers]
        sent = iter(self._offered([one for one, does in zip(answers, goes, strict=True) if does]))
        return [next(sent) if does else Answered.REFUSED for does in goes]

    def _offered(self, answers: Sequence[tuple[Delivery, Message]]) -> list[Answered]:
        if not answers:
            return []
        publications = [_publication(delivery, message) for delivery, message in answers]
        now = time.monotonic()
        self._slow = {queue: until for queue, until in self._slow.items() if until > now}
        wanted = [publication.routing_key not in self._slow for publication in publications]
        try:
            fates = offer(self._publisher(), publications, wanted, CONFIRM_S)
        except Unconfirmed as error:
            if not error.blamed:
                raise
            if any(looks_foreign(publication.routing_key) for publication in publications):
                self._wary_until = time.monotonic() + WARY_S
            if len(answers) == 1:
                return [Answered.REFUSED]
            return [self.send([answer])[0] for answer in answers]
        for publication, wants, fate in zip(publications, wanted, fates, strict=True):
            if wants and fate is Fate.UNKNOWN and len(self._slow) < SLOW_MAX:
                self._slow[publication.routing_key] = time.monotonic() + SLOW_S
        return [FATES[fate] for fate in fates]

    def _publisher(self) -> Link:
        link = self._link
        if link is None or not link.alive:
            link = self._link = open_link(self._nodes, self._stop)
        return link

    def close(self) -> None:
        """See contract.py."""
        link, self._link = self._link, None
        if link is not None:
            link.close()


def _address(raw: bytes | None) -> str:
    """As text; bytes that are none make an address that no queue has."""
    return raw[1:].decode("utf-8", "backslashreplace") if raw else ""


def _address_of(delivery: Delivery) -> str:
    receipt = delivery.receipt
    assert isinstance(receipt, RabbitMQReceipt)
    return _address(cut(receipt.properties).properties.get("reply_to"))


def _publication(delivery: Delivery, message: Message) -> Publication:
    receipt = delivery.receipt
    assert isinstance(receipt, RabbitMQReceipt)
    theirs = cut(receipt.properties).properties
    texts = {"content_type": CONTENT_TYPE, "message_id": message.id, "type": message.type}
    properties = {name: short for name, text in texts.items() if text and (short := short_text(text)) is not None}
    properties["delivery_mode"] = TRANSIENT
    if "correlation_id" in theirs:
        properties["correlation_id"] = theirs["correlation_id"]
    address = _address(theirs.get("reply_to"))
    mandatory = not is_direct(address)  # an answer would arrive at a direct one, and come back as well
    return Publication("", address, Encoded(join(properties, {})), message.body, mandatory)
