"""The demo: a few hundred orders over real brokers into a real ledger, and the proof that they came out right.

Events go half through SNS, half through RabbitMQ (all through SNS where RabbitMQ is not installed), repeated, out of order,
with poison among them; a calm run of the same events in a second database shows what the balances must be.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from incentive_fleet.brokers import declare
from incentive_fleet.brokers.contract import Broker, Publisher
from incentive_fleet.brokers.messages import Message, message_of
from incentive_fleet.brokers.registry import configured, open_events, open_outcomes
from incentive_fleet.consumers.supervisor import Fleet
from incentive_fleet.dead_letters.collector import run_collector
from incentive_fleet.dead_letters.letter import Letter
from incentive_fleet.dead_letters.store import Filters, list_letters
from incentive_fleet.embedded import EmbeddedParts, sample_shop
from incentive_fleet.errors import Refused
from incentive_fleet.events.codec import decode
from incentive_fleet.events.models import OrderFinalized, OrderPlaced
from incentive_fleet.incentives.campaign_file import parse_campaigns
from incentive_fleet.ledger.balances import read_balances
from incentive_fleet.ledger.batch import EVENTS_MAX, apply_events
from incentive_fleet.ledger.codes import PoolRow, load_codes
from incentive_fleet.ledger.grants import Grant, grant
from incentive_fleet.ledger.migrate import upgrade
from incentive_fleet.ledger.order_history import OrderHistory, order_history
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.terms import load_campaigns
from incentive_fleet.ledger.verify import VerifyReport, verify
from incentive_fleet.ledger.wallet_statement import WalletStatement, wallet_statement
from incentive_fleet.producers.relay_loop import RelayPace, RelaySummary, run_relay
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

REPEATED = 0.15  # of the events, on either broker
GROCERIES = 0.85  # of the orders: estimated when they are placed, weighed and substituted when they are picked
OUT_OF_ORDER = 40  # places that an event may be off
IDLE_S = 2.0
PROCESSES = 2

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Story:
    """What happened in the demo."""

    events: int
    published: dict[str, int]  # messages by broker, repeats and poison included
    counts: dict[str, int]  # what became of them
    outcomes: RelaySummary
    dead_letters: list[Letter]
    statement: WalletStatement
    order: OrderHistory  # of which other things were picked than placed
    verified: VerifyReport
    accounts: int
    equal_to_calm_run: bool


@contextmanager
def settings_of(parts: EmbeddedParts) -> Iterator[Settings]:
    """The settings that reach the parts, also for the worker processes, until the block ends."""
    before = dict(os.environ)
    os.environ.update(parts.environment())
    try:
        yield Settings.from_environment(os.environ)
    finally:
        os.environ.clear()
        os.environ.update(before)


def play(parts: EmbeddedParts, settings: Settings, orders: int, seed: int, tell: Tell) -> Story:
    """Play the whole demo against running parts. Raises what the parts raise when one of them fails."""
    shop = sample_shop.Shop(orders, seed, refunds=0.15, groceries=GROCERIES, name="demo")
    bodies = [body for _, body in sample_shop.events(shop)]
    tell(f"{orders} orders, {len(bodies)} events; the schema and the topology are applied")
    declare.apply(settings)
    database_url = settings.need_database_url()
    owner, application = settings.need_owner_urls()
    brokers = configured(settings)
    upgrade(owner, application, destinations=[one.destination for one in brokers])
    _prepare(application or owner, shop)
    counts, published = _publish_and_consume(settings, shop, bodies, brokers, tell)
    tell("publishing the outcomes from the outbox")
    outcomes = _relay(settings, brokers)
    tell("collecting the dead letters")
    run_collector(brokers, settings, Stop(), until_idle_s=1.0)
    tell("playing the same events calmly, in file order, into a second ledger")
    calm = _calm_balances(parts, shop, bodies)
    tell("verifying the ledger")
    with closing(Session(database_url)) as session:
        connection = session.connection
        balances = read_balances(connection)
        order = order_history(connection, _liveliest(bodies))
        assert order is not None, "the calm run has it"
        return Story(
            events=len(bodies),
            published=dict(published),
            counts=dict(sorted(counts.items())),
            outcomes=outcomes,
            dead_letters=list_letters(connection, Filters(), limit=100),
            statement=wallet_statement(connection, _busiest(bodies), limit=12),
            order=order,
            verified=verify(connection),
            accounts=len(balances),
            equal_to_calm_run=balances == calm,
        )


def _prepare(url: str, shop: sample_shop.Shop) -> None:
    with closing(Session(url)) as session:
        load_campaigns(session.connection, parse_campaigns(sample_shop.campaigns(shop)))
        pool = enumerate(sample_shop.codes(shop), start=1)
        load_codes(session.connection, [PoolRow(line, *row, customer_id=None, expires_at=None) for line, row in pool])
        rows = [Grant(*row, expires_at=None) for row in sample_shop.grants(shop)]
        for result in grant(session, rows, datetime.now(UTC)):
            if isinstance(result, Refused):
                raise result


def _publish_and_consume(
    settings: Settings, shop: sample_shop.Shop, bodies: list[bytes], brokers: list[Broker], tell: Tell
) -> tuple[Counter[str], Counter[str]]:
    fleet = Fleet(brokers, PROCESSES, settings, until_idle_s=None)
    published: Counter[str] = Counter()
    failures: list[BaseException] = []

    def publish() -> None:
        try:
            _publish(settings, bodies, brokers, shop, published)
            _wait_until(fleet, sum(published.values()))
            # A conflict is one only when the fact that it contradicts is there already.
            _publish_poison(settings, shop, brokers, published)
            _wait_until(fleet, sum(published.values()))
        except BaseException as error:
            failures.append(error)
        fleet.stop()

    def on_tick(fleet: Fleet) -> None:
        handled = _handled(fleet)
        tell(f"consuming with {PROCESSES} processes: {handled} of {sum(published.values())} messages handled")

    fleet.on_tick = on_tick
    publisher = threading.Thread(target=publish, name="demo-publisher")
    publisher.start()
    try:
        fleet.run()
    finally:
        fleet.stop()
        publisher.join()
    if failures:
        raise failures[0]
    return fleet.counts(), published


def _publish(
    settings: Settings,
    bodies: list[bytes],
    brokers: list[Broker],
    shop: sample_shop.Shop,
    published: Counter[str],
) -> None:
    """Shuffle within a window, repeat some on a broker of their own luck, spread over the brokers."""
    chance = random.Random(shop.seed)
    places = [(number + chance.uniform(0, OUT_OF_ORDER), body) for number, body in enumerate(bodies)]
    places += [(number + chance.uniform(0, len(bodies)), body) for number, body in chance.sample(places, _some(bodies))]
    lanes: dict[Broker, list[Message]] = {one: [] for one in brokers}
    for _, body in sorted(places):
        lanes[chance.choice(brokers)].append(message_of(body))
    threads = [threading.Thread(target=_send, args=(settings, one, lanes[one], published)) for one in brokers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _some(bodies: list[bytes]) -> int:
    return int(len(bodies) * REPEATED)


def _send(settings: Settings, broker: Broker, messages: list[Message], published: Counter[str]) -> None:
    with closing(open_events(settings, broker)) as publisher:
        for start in range(0, len(messages), 50):
            chunk = messages[start : start + 50]
            rejections = publisher.publish(chunk)
            if rejections:
                raise Refused(rejections[0].reason, rejections[0].detail)
            published[broker.destination] += len(chunk)


def _publish_poison(settings: Settings, shop: sample_shop.Shop, brokers: list[Broker], published: Counter[str]) -> None:
    for number, (_, kind, body) in enumerate(sample_shop.poison(shop)):
        broker = brokers[number % len(brokers)]
        _send(settings, broker, [Message(body, kind, f"poison-{number}")], published)


def _wait_until(fleet: Fleet, handled: int) -> None:
    while _handled(fleet) < handled and not fleet.stopping.is_set():
        fleet.stopping.wait(0.1)


def _handled(fleet: Fleet) -> int:
    counts = fleet.counts()
    verdicts = sum(counts[name] for name in ("applied", "waiting", "duplicate"))
    return verdicts + sum(count for name, count in counts.items() if name.startswith("dead-letter:"))


def _relay(settings: Settings, brokers: list[Broker]) -> RelaySummary:
    publishers: dict[str, Publisher] = {one.destination: open_outcomes(settings, one) for one in brokers}
    try:
        return run_relay(settings.need_database_url(), publishers, stop=Stop(), pace=RelayPace(until_idle_s=0.5))
    finally:
        for publisher in publishers.values():
            publisher.close()


def _calm_balances(parts: EmbeddedParts, shop: sample_shop.Shop, bodies: list[bytes]) -> dict[str, int]:
    import psycopg

    with psycopg.connect(parts.postgres.url(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE calm")
    url = parts.postgres.application_url("calm")
    upgrade(parts.postgres.url("calm"), url)
    _prepare(url, shop)
    with closing(Session(url)) as session:
        events = [decode(body) for body in bodies]
        for start in range(0, len(events), EVENTS_MAX):
            apply_events(session, events[start : start + EVENTS_MAX])
        return read_balances(session.connection)


def _liveliest(bodies: list[bytes]) -> str:
    """The order with the most coupons of those that had oat milk for milk: the life of a grocery's order in one."""
    facts = [decode(body).data for body in bodies]
    substituted = {
        fact.order_id: 0
        for fact in facts
        if isinstance(fact, OrderFinalized) and any(line.line_id == "oat-milk" for line in fact.lines)
    }
    coupons = {fact.order_id: len(fact.coupons) for fact in facts if isinstance(fact, OrderPlaced)}
    return max(substituted or coupons, key=lambda order_id: coupons[order_id])


def _busiest(bodies: list[bytes]) -> str:
    """The customer with the most orders: the statement worth showing."""
    customers = Counter(
        data.customer_id for body in bodies if (data := decode(body).data) and hasattr(data, "customer_id")
    )
    return customers.most_common(1)[0][0]
