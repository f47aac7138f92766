"""Health over HTTP, for whoever restarts or routes: /healthz (alive) and /readyz (parts reachable, not paused); and /metrics,
which is telemetry's. Of every command that runs until it is told to stop.

One thread serves everybody. Whoever connects has five seconds and 8 KiB for a request; of those that have not finished
theirs, the oldest is dropped for the thirty-third, so that half a request never keeps a whole one waiting. What it says are
codes of ours, never a driver's words (probes.py logs those).
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from incentive_fleet.accepting import end_serving
from incentive_fleet.brokers.contract import Broker
from incentive_fleet.consumers.probes import PROBE_TIMEOUT_S, REACHED, TIMED_OUT, Database, Part, probes_of
from incentive_fleet.errors import SettingsError
from incentive_fleet.settings import Settings, variable

REQUEST_TIMEOUT_S: Final = 5.0  # from the connection to the end of its headers
REQUEST_BYTES_MAX: Final = 8 * 1024  # a probe sends some 200
BACKLOG: Final = 1_024  # that the kernel keeps for us; beyond, it makes a client try again a second later
READING_MAX: Final = 32  # connections whose request is not complete
ANSWERING_MAX: Final = 32  # requests that wait for the parts; all of them wait for the same answers
ANSWER_TIMEOUT_S: Final = PROBE_TIMEOUT_S + 1.0  # connecting and asking may take two bounds; the next one finds it done

Document = dict[str, object]
Page = Callable[[], Awaitable[tuple[str, bytes]]]  # content type and body
PATHS: Final = ["/healthz", "/readyz", "/metrics"]
JSON: Final = "application/json"
PHRASES: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
} | {
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


@contextmanager
def serve_health(
    settings: Settings,
    brokers: Sequence[Broker],
    activity: str,
    paused: Callable[[], bool],
    metrics: Page | None = None,
) -> Iterator[int | None]:
    """Serve while the body runs, at INCENTIVES_HEALTH_HOST and _PORT; not at all when the port is unset.

    `activity` is the name under which /readyz tells that `paused` says yes. Yields the port (0 asks for a free one). Raises
    SettingsError when the port is taken.
    """
    if settings.health_port is None:
        yield None
        return
    probes = probes_of(settings, brokers)
    parts = [Part(name, probe) for name, probe in probes.items()]
    with ExitStack() as stack:
        for probe in probes.values():
            if isinstance(probe, Database):
                stack.callback(probe.close)
        service = Service(parts, activity, paused, metrics)
        yield stack.enter_context(serving(settings.health_host, settings.health_port, service))


@contextmanager
def serving(host: str, port: int, service: Service) -> Iterator[int]:
    """Run the service in a thread of its own while the body runs; yields the port. Raises SettingsError when it is
    taken, or no address of this machine."""
    with _listening(host, port) as listener:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(
            target=loop.run_until_complete, args=(service.run(listener),), name="health", daemon=True
        )
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            loop.call_soon_threadsafe(service.stopped.set)
            thread.join()
            loop.close()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        names = f"{variable('health_host')} and {variable('health_port')}"
        raise SettingsError(f"{names} are {host!r} and {port}: {error.strerror}.") from None


@dataclass(frozen=True, slots=True)
class Bounds:
    """In seconds: how long a request, and writing its answer, may take; and how long a part may."""

    request_s: float = REQUEST_TIMEOUT_S
    answer_s: float = ANSWER_TIMEOUT_S


BOUNDS: Final = Bounds()


class Service:
    """The connections of one server; all of it runs in one event loop."""

    def __init__(
        self,
        parts: Sequence[Part],
        activity: str,
        paused: Callable[[], bool],
        metrics: Page | None = None,
        *,
        bounds: Bounds = BOUNDS,
    ) -> None:
        self.stopped = asyncio.Event()
        self._bounds = bounds
        self._parts = parts
        self._activity = activity
        self._paused = paused
        self._metrics = metrics
        self._reading: dict[asyncio.Task[None], None] = {}  # in the order in which they came
        self._tasks: set[asyncio.Task[None]] = set()
        self._answering = 0

    async def run(self, listener: socket.socket) -> None:
        """Serve until `stopped` is set, then drop whoever is connected."""
        server = await asyncio.start_server(self._connected, sock=listener, limit=REQUEST_BYTES_MAX, backlog=BACKLOG)
        async with server:
            await self.stopped.wait()
            await end_serving([server], self._tasks)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._reading) >= READING_MAX:
            oldest = next(iter(self._reading))
            del self._reading[oldest]
            oldest.cancel()
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._reading[task] = None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: self._reading.pop(done, None))
        task.add_done_callback(
            lambda _: _close(writer)
        )  # a task that is dropped before it began runs nothing of itself

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(await self._answered(reader))
            async with asyncio.timeout(self._bounds.request_s):
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):  # it went away, or does not read
            pass

    async def _answered(self, reader: asyncio.StreamReader) -> bytes:
        answer = await self._request(reader)
        if answer is None and self._metrics is not None and self._answering < ANSWERING_MAX:
            self._answering += 1
            try:
                return _answer(200, *await self._metrics())
            finally:
                self._answering -= 1
        status, document = answer or (503, {"status": "too many ask at once"})
        return _answer(status, JSON, json.dumps(document).encode())

    async def _request(self, reader: asyncio.StreamReader) -> tuple[int, Document] | None:
        """The answer; None when it is the page of metrics."""
        try:
            async with asyncio.timeout(self._bounds.request_s):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            return 408, {"status": "request not complete"}
        except asyncio.LimitOverrunError:
            return 431, {"status": "request too large"}
        current = asyncio.current_task()
        assert current is not None
        self._reading.pop(current, None)
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return 400, {"status": "no request of HTTP/1"}
        if words[0] != b"GET":
            return 405, {"status": "only GET is answered"}
        path = words[1].split(b"?", 1)[0]
        if path == b"/healthz":
            return 200, {"status": "alive"}
        if path == b"/readyz":
            return await self._ready()
        if path == b"/metrics" and self._metrics is not None:
            return None
        return 404, {"status": "not found", "paths": PATHS}

    async def _ready(self) -> tuple[int, Document]:
        if self._answering >= ANSWERING_MAX:
            return 503, {"status": "too many ask at once", "faults": {}}
        self._answering += 1
        try:
            codes = await asyncio.gather(*(_code(part, self._bounds.answer_s) for part in self._parts))
        finally:
            self._answering -= 1
        faults = {part.name: code for part, code in zip(self._parts, codes, strict=True) if code != REACHED}
        faults |= {self._activity: "paused"} if self._paused() else {}
        return (503 if faults else 200), {"status": "not ready" if faults else "ready", "faults": faults}


def _close(writer: asyncio.StreamWriter) -> None:
    if writer.transport.get_write_buffer_size():
        writer.transport.abort()  # it did not read its answer in time
    else:
        writer.close()


async def _code(part: Part, within_s: float) -> str:
    try:
        async with asyncio.timeout(within_s):
            return await asyncio.wrap_future(part.ask())
    except TimeoutError:
        return TIMED_OUT


def _answer(status: int, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status} {PHRASES[status]}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
