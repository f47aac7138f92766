"""One worker process of the fleet: a consumer thread a broker, each with its own connection, transport and core.

Of quotes it has a consumer a broker as well, which answers them (answering.py).

It speaks to its supervisor in JSON lines on standard output: state and counts, once a second and at the end; a careful one
(suspects.py) also what it has in hand.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from incentive_fleet.brokers import registry
from incentive_fleet.brokers.contract import Broker, Transport
from incentive_fleet.brokers.registry import by_source, parts_of
from incentive_fleet.consumers.admission import admission_of
from incentive_fleet.consumers.answering import Answering
from incentive_fleet.consumers.consumer import Consumer
from incentive_fleet.consumers.core import Core
from incentive_fleet.consumers.garbage import look_seldom, return_large_blocks
from incentive_fleet.consumers.suspects import Care
from incentive_fleet.ledger.session import READ_ONLY, Session
from incentive_fleet.logs import start_logging
from incentive_fleet.measuring import sum_of
from incentive_fleet.reply_addresses import read_reply_addresses
from incentive_fleet.sentry import reporting
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from incentive_fleet.tracing import EXPORT_TIMEOUT_S, Spans

log = logging.getLogger(__name__)

REPORT_EVERY_S = 1.0
CAREFUL = "--careful"  # see suspects.py
OF_QUOTES = "--quotes"  # it answers those rather than applying facts
QUESTIONS = 50  # requests answered together, and held by one process: others may be free
_SPEAKING = threading.Lock()
DRAINED = 128 + signal.SIGTERM  # exit code of a worker that was told to stop and did; 0 says that nothing is left to do


def open_transport(broker: Broker, settings: Settings, stop: Stop) -> Transport:
    """The broker's adapter, connected on first use. Raises SettingsError when the broker's address is missing."""
    return parts_of(broker).open_transport(settings, stop)


def open_consumer(
    broker: Broker, settings: Settings, stop: Stop, care: Care | None = None, spans: Spans | None = None
) -> Consumer:
    """A consumer of one broker with a core of its own."""
    session = Session(settings.need_database_url(), application_name=f"incentives consume {broker.source}")
    core = Core(
        session,
        settings.retry_delays_s,
        clock=lambda: datetime.now(UTC),
        skip_locked=True,
        event_bytes_max=settings.event_bytes_max,
        admission=admission_of(settings),
    )
    return Consumer(
        name=f"{broker.source}-{os.getpid()}",
        transport=open_transport(broker, settings, stop),
        core=core,
        batch_size=settings.batch_size,
        wait_s=settings.wait_s,
        pause_max_s=settings.pause_max_s,
        stop=stop,
        care=care,
        spans=spans,
        gather_s=settings.gather_s,
    )


def open_answerer(
    broker: Broker, settings: Settings, stop: Stop, care: Care | None = None, spans: Spans | None = None
) -> Consumer:
    """A consumer of one broker's quote requests, which answers them there, by a replica where there is one. Small batches, for each
    request waits for all of its batch."""
    name = f"incentives answer-quotes {broker.source}"
    url = settings.read_database_url or settings.need_database_url()
    session = Session(url, application_name=name, settings=READ_ONLY)
    addresses = read_reply_addresses(settings.allowed_reply_addresses, registry.every_queue(settings))
    few = {"batch_size": min(settings.batch_size, QUESTIONS), "prefetch": min(settings.prefetch, QUESTIONS)}
    settings = settings.model_copy(update=few)
    parts = parts_of(broker)
    return Consumer(
        name=f"{broker.source}-{os.getpid()}",
        transport=parts.open_quotes(settings, stop),
        core=Answering(
            session, parts.open_replies(settings, stop), addresses, settings.event_bytes_max, admission_of(settings)
        ),
        batch_size=settings.batch_size,
        wait_s=settings.wait_s,
        pause_max_s=settings.pause_max_s,
        stop=stop,
        care=care,
        spans=spans,
    )


def run_worker(
    brokers: list[Broker],
    settings: Settings,
    until_idle_s: float | None,
    stop: Stop,
    care: Care | None = None,
    open_one: Callable[..., Consumer] = open_consumer,
) -> Counter[str]:
    """Consume from every broker at once until `stop` or idle; returns the counts. A thread's error ends the worker."""
    spans = Spans(settings) if settings.otlp_endpoint else None
    consumers = [open_one(broker, settings, stop, care, spans) for broker in brokers]
    failures: list[BaseException] = []

    def run(consumer: Consumer) -> None:
        try:
            consumer.run(until_idle_s)
        except BaseException as error:
            log.critical("consumer failed", exc_info=error, extra={"consumer": consumer.name})
            failures.append(error)
            stop.set()

    look_seldom()
    return_large_blocks()
    threads = [threading.Thread(target=run, args=(consumer,), name=consumer.name) for consumer in consumers]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            thread.join(REPORT_EVERY_S / len(threads))
        _report(consumers, stop)
    _report(consumers, stop)
    if spans is not None:
        spans.close(min(EXPORT_TIMEOUT_S, stop.left_to_finish_s()))
    if failures:
        raise failures[0]
    return _sum(consumers)


def _report(consumers: list[Consumer], stop: Stop) -> None:
    for consumer in consumers:
        consumer.tally.level("incentives_held_bytes", now=consumer.transport.held_bytes)
    report = {
        "counts": _sum(consumers),
        "paused": any(consumer.pause.paused for consumer in consumers),
        "tally": sum_of(consumer.tally for consumer in consumers).document(),
    }
    _say(report, stop)


def _say(report: Mapping[str, object], stop: Stop) -> None:
    """Tell the supervisor. When it is gone, nobody would stop or restart this worker any more: it drains and ends."""
    try:
        with _SPEAKING:  # a careful worker's consumers report as well
            print(json.dumps(report), flush=True)  # noqa: T201  (the channel to the supervisor)
    except BrokenPipeError:
        if not stop.is_set():
            log.warning("the supervisor is gone")
        stop.set()
        # What could not be written is still buffered; on the way out Python would try once more, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sum(consumers: list[Consumer]) -> Counter[str]:
    total: Counter[str] = Counter()
    for consumer in consumers:
        total.update(dict(consumer.core.counts))
    return total


def main(arguments: list[str]) -> int:
    """`python -m incentive_fleet.consumers.worker SOURCES [UNTIL_IDLE_S] [--quotes] [--careful [DIGEST,...]]`: started by
    the supervisor, not by people."""
    settings = Settings.from_environment(os.environ)
    start_logging(settings.log_level, settings.log_format)
    stop = Stop(settings.drain_s)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    care = None
    if CAREFUL in arguments:
        at = arguments.index(CAREFUL)
        condemned = frozenset(digest for digest in ",".join(arguments[at + 1 :]).split(",") if digest)
        arguments = arguments[:at]
        care = Care(condemned, lambda in_hand: _say({"in_hand": in_hand}, stop))
        settings = settings.model_copy(update={"batch_size": 1, "prefetch": 1})
    open_one = open_answerer if OF_QUOTES in arguments else open_consumer
    arguments = [argument for argument in arguments if argument != OF_QUOTES]
    brokers = [by_source(word) for word in arguments[0].split(",")]
    until_idle_s = float(arguments[1]) if len(arguments) > 1 else None
    with reporting(settings, stop.left_to_finish_s):
        run_worker(brokers, settings, until_idle_s, stop, care, open_one)
    return DRAINED if stop.is_set() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
