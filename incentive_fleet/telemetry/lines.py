"""The lines that every serving process writes: one at its start, one a minute with rates, one at its end with totals.

None holds a secret: of an address it tells where it leads, of a key that there is one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from incentive_fleet.addresses import described
from incentive_fleet.brokers.contract import Broker
from incentive_fleet.measuring import Tally
from incentive_fleet.pausing import PAUSED
from incentive_fleet.release import version
from incentive_fleet.settings import ADDRESSES, Settings

MINUTE_S: Final = 60.0
# Settings that are texts and hold no secret; of any other text it is told that it is set.
SPOKEN: Final = frozenset(
    {
        *("prefix", "allowed_sources", "aws_region", "cloudwatch_ages", "health_host", "log_level", "log_format"),
        *("sentry_environment", "sentry_release", "serve_host", "allowed_reply_addresses", "oidc_roles_claim"),
    }
)
# What the lines tell, by what: the metric's last label, of which there are few.
TOLD: Final = {
    "incentives_events_total": "events",
    "incentives_deliveries_total": "deliveries",
    "incentives_dead_letters_total": "dead_letters",
    "incentives_transaction_retries_total": "transaction_retries",
    "incentives_batch_splits_total": "splits",
    "incentives_pauses_total": "pauses",
    "incentives_worker_restarts_total": "worker_restarts",
    "incentives_collected_total": "collected",
    "incentives_relay_published_total": "published",
    "incentives_quotes_total": "quotes",
    "incentives_http_requests_total": "requests",
}

log = logging.getLogger(__name__)

Totals = dict[str, Counter[str]]


@contextmanager
def telling(
    settings: Settings, brokers: Sequence[Broker], activity: str, tally: Callable[[], Tally], every_s: float = MINUTE_S
) -> Iterator[None]:
    """Write the lines while the body runs, the last one whatever ends it."""
    over, began = threading.Event(), time.monotonic()
    sources = [broker.source for broker in brokers]
    started = {"activity": activity, "version": version(), "sources": sources, "settings": shown(settings)}
    log.info("started", extra=started)
    thread = threading.Thread(target=_every_minute, args=(over, activity, tally, every_s), name="minutes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1.0)
        seconds = round(time.monotonic() - began, 1)
        log.info("stopped", extra={"activity": activity, "seconds": seconds} | _flat(totals_of(tally())))


def _every_minute(over: threading.Event, activity: str, tally: Callable[[], Tally], every_s: float) -> None:
    before, since = totals_of(tally()), time.monotonic()
    while not over.wait(every_s):
        now, at = tally(), time.monotonic()
        totals = totals_of(now)
        news = {name: totals[name] - before.get(name, Counter()) for name in totals}
        extra = {"activity": activity, "seconds": round(at - since, 1)} | _flat(news)
        rates = {f"{name}_per_s": round(news[name].total() / (at - since), 1) for name in news if news[name]}
        paused = sorted(f"{key[1]}: {key[2]}" for key, value in now.levels.items() if key[0] == PAUSED and value)
        log.info("minute", extra=extra | rates | ({"paused": paused} if paused else {}))
        before, since = totals, at


def totals_of(tally: Tally) -> Totals:
    """What the lines tell of a tally."""
    totals: Totals = {}
    for key, value in dict(tally.sums).items():
        if key[0] in TOLD and value:  # a counter may be told at zero, and a line tells what there was
            totals.setdefault(TOLD[key[0]], Counter())[key[-1] if len(key) > 1 else "all"] += int(value)
    return totals


def _flat(totals: Mapping[str, Counter[str]]) -> dict[str, object]:
    return {name: dict(sorted(counts.items())) for name, counts in totals.items() if counts}


def shown(settings: Settings) -> dict[str, object]:
    """The settings that are set or have a default, for the log."""
    told: dict[str, object] = {}
    for name, value in settings.model_dump(exclude_none=True).items():
        if name in ADDRESSES:
            told[name] = described(str(value))
        elif isinstance(value, str) and name not in SPOKEN:
            told[name] = "set"
        else:
            told[name] = list(value) if isinstance(value, tuple) else value
    return told
