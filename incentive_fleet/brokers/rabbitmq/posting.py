"""Publishes over a link, all at once, and learns what became of each: patiently, or for a moment only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from incentive_fleet.brokers.rabbitmq.confirms import Confirms, Fate, Publication, Unconfirmed
from incentive_fleet.brokers.rabbitmq.link import Link
from incentive_fleet.errors import BrokerUnavailable

CONFIRM_S: Final = 30.0  # a quorum queue confirms in milliseconds; longer means that its majority is away
CONFIRM_BYTES_S: Final = 1024 * 1024  # ... but for the bytes that have to get there


def publish(link: Link, publications: Sequence[Publication]) -> list[bool]:
    """Publish all, wait until each is confirmed; False for one that was refused or could not be routed.

    Raises Unconfirmed when the broker went away or did not confirm in time, and the link is over then.
    """
    confirms = Confirms(link.published)
    tags = [confirms.sent(*one.told) for one in publications]
    within_s = CONFIRM_S + sum(len(item.body) for item in publications) / CONFIRM_BYTES_S
    try:
        link.post(confirms, publications)
        link.wait_for_answer(within_s, "confirm of a publication")
    except BrokerUnavailable as error:
        link.quiet()
        raise Unconfirmed(str(error), confirms.taken(tags), blamed=link.blamed) from error
    return confirms.taken(tags)


def offer(link: Link, publications: Sequence[Publication], wanted: Sequence[bool], within_s: float) -> list[Fate]:
    """Publish all, wait so long for what becomes of the wanted ones, and let the link go on whatever came.

    Raises Unconfirmed when the link is over, BrokerUnavailable when an alarm keeps the broker from reading.
    """
    if link.blocked:
        raise BrokerUnavailable("RabbitMQ: blocks publishers: its memory or disk alarm is on")
    confirms = Confirms(link.published, strict=False)
    tags = [confirms.sent(*one.told, wanted=wants) for one, wants in zip(publications, wanted, strict=True)]
    try:
        link.post(confirms, publications)
        if confirms.waiting:
            link.answered_within(within_s)
    except BrokerUnavailable as error:
        link.quiet()
        raise Unconfirmed(str(error), confirms.taken(tags), blamed=link.blamed) from error
    return [confirms.fate(tag) if wants else Fate.UNKNOWN for tag, wants in zip(tags, wanted, strict=True)]
