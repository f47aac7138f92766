"""Figure 8: how fast the outbox is published, confirmed one by one, beside the rate at which the consumers fill it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg

from benchmarks import contestants, stopwatch
from benchmarks.contestants import enter
from benchmarks.measuring import Spread, last_outcome, wait_until_booked
from benchmarks.plots import Bar, bars
from benchmarks.publishing import open_publisher
from benchmarks.quiet import in_quiet
from benchmarks.reporting import Figure
from benchmarks.rig import Events, Rig, Stream, declare_topology, events_of, generated
from benchmarks.sizes import Sizes
from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.brokers.registry import open_outcomes
from incentive_fleet.producers.relay_loop import run_relay
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

FLEET = 2
LEFT = "SELECT count(*) FROM outbox_unpublished"


def figure(rig: Rig, sizes: Sizes) -> Figure:
    """Measure and tell."""
    stream = generated(sizes.relay_events, name="r")
    events = events_of(stream)
    alone, consuming, lags = [], [], []
    for _ in range(sizes.rounds):
        rate, outcomes, lag_s = in_quiet(lambda: _round(rig, stream, events))
        consuming.append(rate)
        alone.append(outcomes)
        lags.append(lag_s)
        print(f"relay       alone {outcomes:,.0f}/s, consumers {rate:,.0f}/s, lag {lag_s:.1f} s", flush=True)
    relay, fleet, lag = Spread.of(alone), Spread.of(consuming), Spread.of(lags)
    rows = [
        ["", "median (least to most)"],
        ["relay alone, outcomes/s", relay.text()],
        [f"fleet of {FLEET} alone, events/s", fleet.text()],
        ["both at once: last outcome published after the last COMMIT, s", lag.text(1)],
    ]
    notes = [
        f"**The relay publishes {relay.median / fleet.median:.2f} times as fast as the consumers fill the outbox**"
        " when each has the machine to itself; every event has one outcome, every grant a notice, and each is confirmed.",
    ]
    plot = bars(
        "Outbox",
        "events/s",
        [
            Bar("relay", relay.median, relay.least, relay.most, ours=True),
            Bar(f"fleet x{FLEET}", fleet.median, fleet.least, fleet.most),
        ],
    )
    return Figure("relay", "Relay", rows, notes, plot, {"relay": alone, "fleet": consuming, "lag_s": lags})


def _round(rig: Rig, stream: Stream, events: Events) -> tuple[float, float, float]:
    """The consumers' rate and the relay's, each alone, and the relay's lag in seconds beside the consumers."""
    with rig.ledger(stream) as url:
        rate = _drain(rig, url, events)[0]
        outcomes = _relay_alone(rig.settings(url), last_outcome(url))
    with rig.ledger(stream) as url:
        return rate, outcomes, _drain(rig, url, events, relay=True)[1]


def _relay_alone(settings: Settings, outcomes: int) -> float:
    declare_topology(settings)
    began = time.perf_counter()
    with _relay(settings):
        ended = _wait_until_published(settings.need_database_url())
    return outcomes / (ended - began)


def _drain(rig: Rig, url: str, events: Events, *, relay: bool = False) -> tuple[float, float]:
    """Events per second of the fleet and, with a relay beside it, seconds from the last COMMIT to the last outcome."""
    entry = enter(rig, contestants.fleet(FLEET), url)
    with open_publisher(entry.settings.need_rabbitmq_url()) as publisher:
        publisher.publish(entry.wires(events))
    rig.checkpoint()
    lag = 0.0
    if relay:
        with _relay(entry.settings), entry.working():
            ended = wait_until_booked(url, len(events))
            _wait_until_published(url)
            lag = time.time() - ended / 1e9
    else:
        with entry.working():
            ended = wait_until_booked(url, len(events))
    first = min(stopwatch.read(entry.notes)["first"].values())
    return len(events) / ((ended - first) / 1e9), lag


@contextmanager
def _relay(settings: Settings) -> Iterator[None]:
    """The product's relay on a thread of its own, until the block ends."""
    stop = Stop()
    with closing(open_outcomes(settings, RABBITMQ)) as publisher:
        arguments = (settings.need_database_url(), {RABBITMQ.destination: publisher})
        thread = threading.Thread(target=run_relay, args=arguments, kwargs={"stop": stop})
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _wait_until_published(url: str) -> float:
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(LEFT).fetchone() != (0,):
            time.sleep(0.05)
    return time.perf_counter()
