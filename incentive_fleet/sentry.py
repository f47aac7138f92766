"""Unexpected errors to Sentry, where INCENTIVES_SENTRY_DSN is set; needs the extra `sentry`. Off, nothing is imported.

It listens to the log: a line that carries an error goes out as class, place and reason, the way to there, and nothing else. Never a
payload, a customer, a variable, a breadcrumb, an address, or the words of any error: those are in the log and with the dead
letter. What cannot be sent is dropped; it keeps no batch waiting.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from incentive_fleet.errors import FleetError, PermanentError, Refused, SettingsError
from incentive_fleet.logs import CULPRIT, OUR_LOGGER, PLACES_MAX, chain_of
from incentive_fleet.release import version
from incentive_fleet.settings import Settings, variable

QUEUE_EVENTS: Final = 100  # waiting to be sent; beyond, the newest are dropped
SEND_TIMEOUT_S: Final = 5  # of one request
FLUSH_S: Final = 2.0  # at the end of a process all that is left has this long
AGAIN_S: Final = 60.0  # an error that goes on is told once, and then counted: once a minute at the most
FRAMES_MAX: Final = 50  # of an error, the innermost; a deep recursion has a thousand more
CHAIN_MAX: Final = 5  # causes of an error, the nearest
PACKAGE: Final = Path(__file__).parent
MARK: Final = "_told_to_sentry"

log = logging.getLogger(__name__)

Event = dict[str, Any]
Fingerprint = tuple[str, str, str]


class Sends(Protocol):
    """What is used of Sentry's client."""

    def capture_event(self, event: Any) -> Any: ...
    def close(self, timeout: float) -> Any: ...


@dataclass(slots=True)
class _Told:
    """One kind of error: what was told of it, and what has come since."""

    level: str
    at: float
    since: int = 0


class SentryHandler(logging.Handler):
    """Any thread may log. An error is told once with its way, and then how many more there were."""

    def __init__(self, client: Sends, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._client, self._clock = client, clock
        self._kinds: dict[Fingerprint, _Told] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Runs under the handler's lock; Sentry's client only takes it into a queue."""
        error = error_of(record)
        if error is None or getattr(error, MARK, False):
            return
        with suppress(
            AttributeError
        ):  # one that is logged where it ends a thread comes again where it ends the process
            setattr(error, MARK, True)
        try:
            self._tell(fingerprint_of(error, str(record.msg)), record.levelname.lower(), error, _times(record))
        except Exception as fault:  # logging's own way would print the error's words
            log.warning("an unexpected error is not told to Sentry", extra={"error": type(fault).__qualname__})

    def close(self) -> None:
        """Tell what was counted since it was told."""
        with self.lock or threading.RLock():
            for kind, told in self._kinds.items():
                if told.since:
                    self._send(kind, told.level, told.since)
                    told.since = 0
        super().close()

    def _tell(self, kind: Fingerprint, level: str, error: BaseException, times: int) -> None:
        now, told = self._clock(), self._kinds.get(kind)
        if told is None:
            if len(self._kinds) < PLACES_MAX:
                self._kinds[kind] = _Told(level, now)
                self._send(kind, level, times, error)
            return
        told.since += times
        if now - told.at >= AGAIN_S:
            self._send(kind, level, told.since)
            told.at, told.since = now, 0

    def _send(self, kind: Fingerprint, level: str, times: int, error: BaseException | None = None) -> None:
        name, place, reason = kind
        event: Event = {
            "level": "fatal" if level == "critical" else level,
            "logger": OUR_LOGGER,
            "fingerprint": list(kind),
            "transaction": place,
            "tags": {"error_class": name, "place": place, "reason": reason},
            "extra": {"times": times},
        }
        if error is None:
            event["message"] = f"{name} in {place}, {reason}: again"
        else:
            event["exception"] = {"values": [_exception(one, reason) for one in chain_of(error)[-CHAIN_MAX:]]}
        self._client.capture_event(event)


def error_of(record: logging.LogRecord) -> BaseException | None:
    """The error that a line of the log is about, if it is about an unexpected one."""
    error: BaseException | None = getattr(record, CULPRIT, None)
    return error or (record.exc_info[1] if record.exc_info else None)


def fingerprint_of(error: BaseException, said: str) -> Fingerprint:
    """Class, innermost place in our code, and reason: a code that the error has, else the constant words of our own line."""
    return _class(error), _place(error), _reason(error) or said


def _class(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _place(error: BaseException) -> str:
    """Without the line, which moves with every release."""
    frames = _frames(error)
    ours = [frame for frame in frames if PACKAGE in Path(frame.filename).parents]
    innermost = (ours or frames)[-1:]
    return f"{_file(innermost[0].filename)}:{innermost[0].name}" if innermost else "unknown"


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The innermost last; without the lines of source, which nobody needs to read."""
    return traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)[-FRAMES_MAX:]


def _reason(error: BaseException) -> str:
    if isinstance(error, PermanentError | Refused):
        return error.reason
    return str(getattr(error, "sqlstate", None) or "")


def _file(path: str) -> str:
    """From our package on, or a library's name and what follows: where it is installed is nobody's business."""
    parts = Path(path).parts
    start = next(
        (at + 1 for at in reversed(range(len(parts))) if parts[at] in {"site-packages", "dist-packages"}), None
    )
    if PACKAGE in Path(path).parents:
        start = len(PACKAGE.parts) - 1
    return "/".join(parts[start:] if start is not None else parts[-2:])


def _exception(error: BaseException, reason: str) -> Event:
    told = [
        {
            "filename": _file(frame.filename),
            "function": frame.name,
            "lineno": frame.lineno,
            "in_app": PACKAGE in Path(frame.filename).parents,
        }
        for frame in _frames(error)
    ]
    return {
        "type": type(error).__qualname__,
        "module": type(error).__module__,
        "value": _reason(error) or reason,
    } | ({"stacktrace": {"frames": told}} if told else {})


def _times(record: logging.LogRecord) -> int:
    """Of one line: a batch's culprits of one kind are told in one."""
    told = getattr(record, "events", None) or getattr(record, "copies", None)
    return told if isinstance(told, int) else 1


@contextmanager
def reporting(settings: Settings, left_s: Callable[[], float] = lambda: FLUSH_S) -> Iterator[None]:
    """Tell Sentry while the body runs, and of the error that ends it. What is left at the end has `FLUSH_S`, and no more than
    `left_s`. Raises SettingsError without the extra."""
    if settings.sentry_dsn is None:
        yield
        return
    client = open_client(settings)
    handler = SentryHandler(client)
    ours = logging.getLogger(OUR_LOGGER)
    ours.addHandler(handler)
    try:
        yield
    except Exception as error:
        if not isinstance(error, FleetError):
            about = {"name": OUR_LOGGER, "levelno": logging.CRITICAL, "levelname": "CRITICAL", "msg": "process failed"}
            handler.handle(logging.makeLogRecord(about | {CULPRIT: error}))
        raise
    finally:
        ours.removeHandler(handler)
        handler.close()
        closing = threading.Thread(target=client.close, args=(FLUSH_S,), name="sentry", daemon=True)
        closing.start()
        closing.join(min(FLUSH_S, left_s()))


def open_client(settings: Settings) -> Sends:
    """Sentry's client with everything off that gathers by itself. Raises SettingsError without the extra."""
    try:
        from sentry_sdk import Client
        from sentry_sdk.transport import HttpTransport
    except ImportError:
        needs = "needs the packages of incentive-fleet[sentry]"
        raise SettingsError(f"{variable('sentry_dsn')} is set, and {needs}.") from None

    class Bounded(HttpTransport):
        """Gives up soon, and says once that events are lost."""

        TIMEOUT = SEND_TIMEOUT_S
        _said = False

        def on_dropped_event(self, reason: str) -> None:
            if not self._said:
                self._said = True
                log.info("unexpected errors cannot be sent to Sentry and are dropped", extra={"why": reason})

    logging.getLogger("sentry_sdk.errors").setLevel(logging.CRITICAL)  # it would repeat what it could not send
    return Client(
        dsn=settings.sentry_dsn,
        environment=settings.sentry_environment,
        release=settings.sentry_release or f"incentive-fleet@{version()}",
        transport=Bounded,
        transport_queue_size=QUEUE_EVENTS,
        shutdown_timeout=FLUSH_S,
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        include_local_variables=False,
        include_source_context=False,
        send_client_reports=False,
        enable_backpressure_handling=False,
        max_breadcrumbs=0,
        debug=False,
        spotlight=False,
    )
