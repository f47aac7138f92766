"""Structured logs: one JSON object a line on standard error, for every process of the fleet."""

from __future__ import annotations

import logging
import sys
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime

from incentive_fleet.literal import literal_json

# What a LogRecord has of itself; whatever else it carries came in `extra`.
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


TRACEBACK_CHARACTERS = 8_000  # of its end, which names the culprit; a deep recursion has a thousand lines more
PLACES_MAX = 200  # that one `Traces` remembers


def traceback_of(error: BaseException) -> str:
    """The traceback as text, of bounded length."""
    return "".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:]


@dataclass(slots=True)
class Traces:
    """Which tracebacks were told already: three hundred errors from one place are told once. For one thread."""

    _told: set[tuple[object, ...]] = field(default_factory=set)

    def once(self, error: BaseException) -> str | None:
        """The traceback, the first time that an error of this kind comes from this place; None after that."""
        frames = traceback.extract_tb(error.__traceback__)
        place = (
            type(error),
            getattr(error, "sqlstate", None),
            *((frame.filename, frame.lineno) for frame in frames[-1:]),
        )
        if place in self._told or len(self._told) >= PLACES_MAX:
            return None
        self._told.add(place)
        return traceback_of(error)


class JsonLines(logging.Formatter):
    """time, level, logger, message, and what the caller added."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return literal_json(line, default=str)


def log_json(level: int = logging.INFO) -> None:
    """Send this product's logs to standard error as JSON lines, and of libraries only their warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("incentive_fleet").setLevel(level)
    # These two shout what we say once ourselves: a connection that was lost, a pipeline that went with it.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    logging.getLogger("psycopg").setLevel(logging.ERROR)
