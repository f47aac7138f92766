"""Which brokers there are: the words that others have for each, its parts, and whether it is configured.

The one place that names an adapter; whoever wants a transport, a publisher or anything else of a broker asks here. No driver
is imported before a part is opened, so the command line may import this for its words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from incentive_fleet.brokers.aws import AWS
from incentive_fleet.brokers.aws import parts as aws
from incentive_fleet.brokers.contract import Broker, BrokerParts
from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.brokers.rabbitmq import parts as rabbitmq
from incentive_fleet.brokers.topology import facts_of
from incentive_fleet.errors import SettingsError

if TYPE_CHECKING:
    from incentive_fleet.brokers.contract import Publisher
    from incentive_fleet.brokers.topology import QueueNames
    from incentive_fleet.settings import Settings
    from incentive_fleet.stopping import Stop

# A broker is a line here, a folder beside this file, and a line in tests/contract/conftest.py: docs/adding-a-broker.md.
BROKERS: Final[dict[Broker, BrokerParts]] = {
    AWS: aws,
    RABBITMQ: rabbitmq,
}


def parts_of(broker: Broker) -> BrokerParts:
    """What it takes to talk to the broker."""
    return BROKERS[broker]


def configured(settings: Settings) -> list[Broker]:
    """The brokers whose address the settings name."""
    return [broker for broker in BROKERS if broker.is_configured(settings)]


def none_configured(consequence: str) -> str:
    """The sentence for people when `configured` is empty."""
    return f"Neither {' nor '.join(broker.variable for broker in BROKERS)} is set: {consequence}."


def sources() -> Mapping[str, Broker]:
    """By the word of `--from`, of a letter's transport, and of a part of the health report."""
    return {broker.source: broker for broker in BROKERS}


def destinations() -> Mapping[str, Broker]:
    """By the word of `--to` and of the ledger's destinations."""
    return {broker.destination: broker for broker in BROKERS}


def by_source(word: str) -> Broker:
    """Raises SettingsError for a broker that this release does not know."""
    return _known(sources(), word)


def by_destination(word: str) -> Broker:
    """Raises SettingsError for a broker that this release does not know."""
    return _known(destinations(), word)


def _known(brokers: Mapping[str, Broker], word: str) -> Broker:
    if word not in brokers:
        raise SettingsError(f"There is no broker {word!r}, but {' and '.join(brokers)}.")
    return brokers[word]


def open_events(settings: Settings, broker: Broker, stop: Stop | None = None) -> Publisher:
    """A publisher of events, as an order system is one. Raises SettingsError; connects when first used."""
    return parts_of(broker).open_events(settings, stop)


def open_outcomes(settings: Settings, broker: Broker, stop: Stop | None = None) -> Publisher:
    """A publisher of outcomes, for the relay. Raises SettingsError; connects when first used."""
    return parts_of(broker).open_outcomes(settings, stop)


def queue_names(settings: Settings) -> frozenset[str]:
    """The source and dead-letter queues of every broker, configured or not; that of quotes among them."""
    return frozenset(name for queue in _queues(settings) for name in (queue.source, queue.dead_letters))


def every_queue(settings: Settings) -> frozenset[str]:
    """As `queue_names`, and the queues of retries."""
    retries = {name for queue in _queues(settings) for _, name in queue.retries}
    return queue_names(settings) | retries


def queue_types(settings: Settings) -> dict[str, str]:
    """By the name of every broker's queues of facts the type of event that belongs there."""
    return {queue.source: queue.type for queue in facts_of(_queues(settings))}


def _queues(settings: Settings) -> list[QueueNames]:
    return [queue for parts in BROKERS.values() for queue in parts.queues(settings)]


def probes_of(settings: Settings, brokers: Iterable[Broker], within_s: float) -> dict[str, Callable[[], None]]:
    """A probe a broker, by its source word; each raises OSError when its broker cannot be reached."""

    def of(parts: BrokerParts) -> Callable[[], None]:
        return lambda: parts.probe(settings, within_s)

    return {broker.source: of(parts_of(broker)) for broker in brokers}
