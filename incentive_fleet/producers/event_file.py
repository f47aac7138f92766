"""Publishes a file of CloudEvents, one a line, plain or gzipped. It holds one chunk in memory, never the file.

Two passes: the first decodes every line, the second publishes. The second decodes again, because remembering what the
first found would cost memory with the file, and because the file may have changed in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from incentive_fleet.brokers.budget import portions
from incentive_fleet.brokers.contract import Publisher
from incentive_fleet.brokers.messages import Message, Rejection, message_of
from incentive_fleet.errors import BrokerUnavailable, Malformed, Refused
from incentive_fleet.events.codec import decode
from incentive_fleet.text_files import UNREADABLE, open_text

CHUNK = 2_000  # messages given to the publisher at a time
CHUNK_BYTES = 16 * 1024 * 1024  # ... and of their bodies, or one line
CHUNKS_A_SECOND = 10  # with a rate: small enough to be even, large enough to be batched
LINE_MAX_BYTES = 16 * 1024 * 1024  # no broker takes more by default (RabbitMQ 4: 16 MiB; SNS: 256 KiB)
NAMED = 20  # bad lines and rejections that the summary tells in full; all are counted
TRIES = 6  # of a chunk while the broker is away, some 30 s in all

Chunk = list[tuple[int, Message]]  # line numbers beside messages
Progress = Callable[[str, int, int | None], None]  # "check" or "publish", lines done, lines in all when known


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not a valid event, or that the broker refused."""

    number: int  # from 1
    reason: str  # a stable code
    detail: str  # names field and value


@dataclass(frozen=True, slots=True)
class PublishSummary:
    """What became of a file."""

    lines: int  # that hold anything
    published: int  # confirmed by the broker
    bad: int  # not valid events; never sent
    bad_lines: tuple[BadLine, ...]  # the first of them
    failed: int  # sent, and refused by the broker
    failed_lines: tuple[BadLine, ...]  # the first of them
    seconds: float  # of publishing, the check not included
    withheld: bool = False  # nothing was sent, because a line is bad

    @property
    def ok(self) -> bool:
        """True when every line that was to be sent is confirmed."""
        return not self.withheld and not self.failed


def publish_file(
    path: Path,
    publisher: Publisher,
    *,
    rate: float | None = None,
    skip_bad: bool = False,
    raw: bool = False,
    progress: Progress = lambda phase, done, total: None,
) -> PublishSummary:
    """Check the whole file, then publish its lines in order; nothing is sent when a line is bad, unless `skip_bad`.

    `rate` is in events per second. `raw` sends lines unchecked. Raises Refused when the file cannot be read,
    SettingsError when the destination is missing, BrokerUnavailable when the broker stays away: publishing the file
    again is then harmless, because consumers drop repeats.
    """
    publisher.check()
    lines, bad, bad_lines = _check(path, raw, progress)
    if bad and not skip_bad:
        return PublishSummary(lines, 0, bad, bad_lines, 0, (), 0.0, withheld=True)
    started = time.monotonic()
    chunks = _chunks(path, raw, max(1, min(CHUNK, int(rate / CHUNKS_A_SECOND))) if rate else CHUNK)
    published, failed, failed_lines = _send(
        chunks, publisher, rate, lambda done: progress("publish", done, lines - bad)
    )
    return PublishSummary(lines, published, bad, bad_lines, failed, failed_lines, time.monotonic() - started)


def _check(path: Path, raw: bool, progress: Progress) -> tuple[int, int, tuple[BadLine, ...]]:
    lines = bad = 0
    named: list[BadLine] = []
    for _, line in read_messages(path, raw=raw):
        lines += 1
        if isinstance(line, BadLine):
            bad += 1
            if len(named) < NAMED:
                named.append(line)
        if lines % CHUNK == 0:
            progress("check", lines, None)
    progress("check", lines, lines)
    return lines, bad, tuple(named)


def _send(
    chunks: Iterator[Chunk], publisher: Publisher, rate: float | None, progress: Callable[[int], None]
) -> tuple[int, int, tuple[BadLine, ...]]:
    published = failed = 0
    named: list[BadLine] = []
    started = time.monotonic()
    progress(0)  # from now on some may have arrived that nobody has answered for
    for chunk in chunks:
        if rate:
            time.sleep(max(0.0, started + (published + failed) / rate - time.monotonic()))
        rejections = _publish(publisher, [message for _, message in chunk], published)
        published += len(chunk) - len(rejections)
        failed += len(rejections)
        named += [BadLine(chunk[f.index][0], f.reason, f.detail) for f in rejections[: NAMED - len(named)]]
        progress(published + failed)
    return published, failed, tuple(named)


def _publish(publisher: Publisher, messages: list[Message], confirmed: int) -> list[Rejection]:
    retrying = Retrying(
        retry=retry_if_exception_type(BrokerUnavailable),
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=0.5, max=15),
        reraise=True,
    )
    try:
        return retrying(publisher.publish, messages)
    except BrokerUnavailable as error:
        raise BrokerUnavailable(
            f"{error}. {confirmed} events are confirmed; publish the file again later, repeats do no harm."
        ) from error


def _chunks(path: Path, raw: bool, size: int) -> Iterator[Chunk]:
    lines = ((number, line) for number, line in read_messages(path, raw=raw) if not isinstance(line, BadLine))
    return portions(lines, lambda line: len(line[1].body), CHUNK_BYTES, size)


def read_messages(
    path: Path, *, raw: bool = False, line_max_bytes: int = LINE_MAX_BYTES
) -> Iterator[tuple[int, Message | BadLine]]:
    """Each line that holds anything, with its number, decoded unless `raw`; raises Refused when the file is broken."""
    try:
        with open_text(path) as file:
            for number, line in _lines(file, line_max_bytes):
                yield (
                    number,
                    BadLine(number, "too-long", f"over {line_max_bytes} bytes")
                    if line is None
                    else _message(number, line, raw),
                )
    except UNREADABLE as error:
        raise Refused("unreadable-file", f"{path}: {error}") from error


def _lines(file: IO[bytes], max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Number and content of each line that is not blank; None for one that is too long, read past in pieces."""
    number = 0
    while piece := file.readline(max_bytes + 1):
        number += 1
        if len(piece) <= max_bytes or piece.endswith(b"\n"):
            if line := piece.strip(b" \t\r\n"):
                yield number, line
            continue
        while piece and not piece.endswith(b"\n"):
            piece = file.readline(max_bytes)
        yield number, None


def _message(number: int, line: bytes, raw: bool) -> Message | BadLine:
    if raw:
        return message_of(line)
    try:
        event = decode(line)
    except Malformed as error:
        return BadLine(number, error.reason, error.detail)
    return Message(line, event.type, event.id)
