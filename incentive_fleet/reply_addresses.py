"""Reads INCENTIVES_ALLOWED_REPLY_ADDRESSES: which addresses a quote request may name for its answer. It sends nothing.

    checkout.replies, checkout-*, https://sqs.eu-central-1.amazonaws.com/123456789012/checkout-*

Addresses are parted by commas or line breaks: names of RabbitMQ's queues, and URLs of queues of SQS. `*` at the end of one stands
for whatever follows, but neither for everything nor for a part of a host: whoever may send a request must not choose whom the
fleet talks to.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

ADDRESSES_MAX: Final = 1_000
ADDRESS_MAX: Final = 1_024  # code points
# The two kinds of name that RabbitMQ alone gives out, of which nobody can guess another's: direct reply-to, and exclusive queues
# that were declared without a name.
ANSWERED_ANYWAY: Final = "amq.rabbitmq.reply-to.*, amq.gen-*"
# Nothing that is dropped, decoded or climbed out of on its way to a queue: no query, fragment, %, dots or second slash.
_URL_OF_QUEUE: Final = re.compile(r"https?://[^/?#@%\\\s]+(/[A-Za-z0-9_-]+)+(\.fifo)?", re.ASCII)
_URL_UP_TO_PATH: Final = re.compile(r"https?://[^/*@\s]+/.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ReplyAddresses:
    """Which addresses may be answered."""

    names: frozenset[str]
    beginnings: tuple[str, ...]
    ours: frozenset[str] = field(default_factory=frozenset)  # queues of the fleet's own, which take no answers

    def holds(self, address: str) -> bool:
        """Whether it may be answered. Compared by code point; never a queue of the fleet itself, whatever is allowed, nor a URL
        that somebody may read as another one's."""
        if address in self.ours or len(address) > ADDRESS_MAX:
            return False
        if "://" in address and (not _URL_OF_QUEUE.fullmatch(address) or address.rpartition("/")[2] in self.ours):
            return False
        return address in self.names or address.startswith(self.beginnings)


def read_reply_addresses(text: str, ours: Iterable[str] = ()) -> ReplyAddresses:
    """ValueError says what is wrong, and names the address."""
    addresses = [part for part in (part.strip() for part in re.split(r"[,\r\n]", text)) if part]
    fault = next(_faults(addresses), "")
    if fault:
        raise ValueError(fault)
    names = frozenset(address for address in addresses if not address.endswith("*"))
    return ReplyAddresses(names, tuple(one[:-1] for one in addresses if one.endswith("*")), frozenset(ours))


def _faults(addresses: list[str]) -> Iterator[str]:
    if not addresses:
        yield "there is no address in it; leave it unset for what RabbitMQ itself names"
    if len(addresses) > ADDRESSES_MAX:
        yield f"there are {len(addresses)} addresses: at most {ADDRESSES_MAX} are allowed"
    for address in addresses:
        if "*" in address[:-1]:
            yield f"{address!r} has a * before its end"
        if address == "*":
            yield "'*' would let whoever asks choose any address; name how yours begin"
        if "://" in address and not _URL_UP_TO_PATH.fullmatch(address):
            yield f"{address!r} is no https://host/path, of which a * may stand for the end of the path alone"
        if len(address) > ADDRESS_MAX or any(unicodedata.category(character) == "Cc" for character in address):
            yield f"{address[:ADDRESS_MAX]!r} is no address: 1 to {ADDRESS_MAX} code points, none a control character"
