"""Logs on standard error, for every process of the fleet: lines for people on a terminal, JSON elsewhere.

The members have the names of the Elastic Common Schema (ECS), which OpenTelemetry's conventions took in; what is ours stands
under `incentives.`. A line holds no payload: of an error that is not ours it tells class, SQLSTATE and place, and its words only at
the level debug, for drivers and validators repeat what they were given.
"""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from incentive_fleet.errors import FleetError
from incentive_fleet.literal import literal, literal_json

CULPRIT: Final = "culprit"  # under which a record carries the error that it is about, for sentry.py; no line tells it
# What a LogRecord has of itself; whatever else it carries came in `extra`.
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", CULPRIT}
ECS_VERSION: Final = "8.11.0"
OURS: Final = "incentives."
ECS_NAMES: Final = {"error": "error.message", "error_class": "error.type", "traceback": "error.stack_trace"}
PLAIN: Final = re.compile(r"[\w.:/@+-]+", re.ASCII)  # needs no quotes
OUR_LOGGER: Final = "incentive_fleet"

TRACEBACK_CHARACTERS = 8_000  # of its end, which names the culprit; a deep recursion has a thousand lines more
PLACES_MAX = 200  # that one `Traces` remembers
SELDOM_S: Final = 60.0
LINES_MAX: Final = 200  # that one `Seldom` remembers


def traceback_of(error: BaseException) -> str:
    """The traceback as text, of bounded length, with whatever the errors say: for the history of a dead letter."""
    return "".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:]


def told_words(error: BaseException) -> str:
    """What an error says, as far as a log may repeat it: our own words, else its class and SQLSTATE."""
    if isinstance(error, FleetError) or _whole():
        return str(error).partition("\n")[0][:500]
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__qualname__} (SQLSTATE {state})" if state else type(error).__qualname__


def told_traceback(error: BaseException) -> str:
    """Where an error and its causes come from, of bounded length; what they say as `told_words` allows."""
    if _whole():
        return traceback_of(error)
    return "\n".join(_places(error))[-TRACEBACK_CHARACTERS:]


def chain_of(error: BaseException) -> list[BaseException]:
    """The error's causes as Python tells them, the first one first, and last the error itself."""
    seen: set[int] = set()
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        chain.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return chain[::-1]


def _places(error: BaseException) -> Iterator[str]:
    for one in chain_of(error):
        yield "".join(traceback.format_tb(one.__traceback__)) + told_words(one)


def _whole() -> bool:
    return logging.getLogger(OUR_LOGGER).isEnabledFor(logging.DEBUG)


@dataclass(slots=True)
class Traces:
    """Which tracebacks were told already: three hundred errors from one place are told once, then counted. For one thread."""

    _told: Counter[tuple[object, ...]] = field(default_factory=Counter)

    def told(self, error: BaseException) -> dict[str, object]:
        """What a line is to tell: the traceback, or how many times it came before."""
        frames = traceback.extract_tb(error.__traceback__)
        place = (
            type(error),
            getattr(error, "sqlstate", None),
            *((frame.filename, frame.lineno) for frame in frames[-1:]),
        )
        if place not in self._told and len(self._told) >= PLACES_MAX:
            return {CULPRIT: error}
        self._told[place] += 1
        before = self._told[place] - 1
        return {CULPRIT: error} | (
            {"traceback_told_before": before} if before else {"traceback": told_traceback(error)}
        )


class Seldom(logging.Filter):
    """Lets a line through once a minute, with how many of its kind were kept back: for what strangers can cause as often as they
    like. Lines are of a kind when they have the same words before anything is filled in."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._told: dict[tuple[str, str], tuple[float, int]] = {}  # kind: when it was told last, how many since

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is told."""
        kind, now = (record.name, str(record.msg)), self._clock()
        at, kept_back = self._told.pop(kind, (now - SELDOM_S, 0))
        told = now - at >= SELDOM_S
        self._told[kind] = (now, 0) if told else (at, kept_back + 1)
        if len(self._told) > LINES_MAX:
            del self._told[next(iter(self._told))]
        if told and kept_back:
            record.kept_back = kept_back
        return told


@contextmanager
def seldom(*loggers: str) -> Iterator[None]:
    """Within it, what these loggers tell goes through a `Seldom`."""
    kept = Seldom()
    for name in loggers:
        logging.getLogger(name).addFilter(kept)
    try:
        yield
    finally:
        for name in loggers:
            logging.getLogger(name).removeFilter(kept)


class JsonLines(logging.Formatter):
    """One JSON object a line, with ECS' names."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "@timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "log.level": record.levelname.lower(),
            "message": record.getMessage(),
            "ecs.version": ECS_VERSION,
            "service.name": "incentives",
            "log.logger": record.name,
            "process.pid": record.process,
        }
        line |= {ECS_NAMES.get(name, f"{OURS}{name}"): value for name, value in _carried(record)}
        return literal_json(line, default=str)


class HumanLines(logging.Formatter):
    """One line for people, and a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        carried = dict(_carried(record))
        trace = str(carried.pop("traceback", ""))
        told = " ".join(f"{name}={_value(value)}" for name, value in carried.items())
        first = f"{at} {record.levelname.lower():<8} {literal(record.getMessage())}  {told}".rstrip()
        return "\n".join([first, *(f"    {literal(line)}" for line in trace.splitlines())])


def _value(value: object) -> str:
    return value if isinstance(value, str) and PLAIN.fullmatch(value) else literal_json(value, default=str)


def _carried(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    yield from ((name, value) for name, value in vars(record).items() if name not in STANDARD)
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        yield from (("error_class", type(error).__qualname__), ("traceback", told_traceback(error)))


class _StandardError:
    """Whatever standard error is at the moment: a progress bar on a terminal puts itself in its place."""

    def write(self, text: str) -> None:
        sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def start_logging(level: str = "info", form: str = "auto") -> None:
    """Send this product's logs to standard error, and of libraries only their warnings. `form`: json, text, or auto, which
    is text on a terminal."""
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(_StandardError())
    handler.setFormatter(HumanLines() if text else JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(OUR_LOGGER).setLevel(level.upper())
    # These two shout what we say once ourselves: a connection that was lost, a pipeline that went with it.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    logging.getLogger("psycopg").setLevel(logging.ERROR)
