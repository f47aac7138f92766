"""Backfill: events from a file through the same core, without a broker, in the order of the file."""

from __future__ import annotations

import base64
import gzip
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from incentive_fleet.brokers.budget import Budget, portions
from incentive_fleet.brokers.messages import Ack, DeadLetter, Delivery, Disposition, Retry
from incentive_fleet.consumers.core import UNEXPECTED, Core
from incentive_fleet.errors import DatabaseUnfit, TransientError
from incentive_fleet.events.document import BODY_BYTES_MAX
from incentive_fleet.literal import literal_json
from incentive_fleet.pausing import Pause
from incentive_fleet.stopping import Stop
from incentive_fleet.text_files import past_mark

PAUSES_MAX = 200  # in a row, 2 s each at the most; then it gives up, and running it again goes on where it was
UNFIT_MAX = 1  # tries more where Postgres refuses: a new connection mends a lost statement, and only a person the rest


@dataclass(slots=True)
class BackfillSummary:
    """Events read and what became of them: counts by verdict, rejects by reason."""

    events: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)


def backfill(
    core: Core,
    path: Path,
    *,
    batch_size: int,
    budget: Budget,
    rejects_path: Path | None = None,
    progress: Callable[[int, int], None] = lambda events, bytes_read: None,
) -> BackfillSummary:
    """Apply a .jsonl or .jsonl.gz file; `progress` gets events and compressed bytes read so far.

    Idempotent: what was applied before is a duplicate. Malformed and conflicting events are counted by reason and, with
    `rejects_path`, written there as JSON lines once all is done. Raises TransientError when the database stays away or
    refuses what every event needs; what was applied stays, and running it again does the rest.
    """
    summary = BackfillSummary()
    part = rejects_path.with_name(rejects_path.name + ".part") if rejects_path else None
    try:
        with path.open("rb") as raw, open(part or os.devnull, "w", encoding="utf-8") as rejects:
            for batch in _batches(raw, path, batch_size, budget):
                for delivery, disposition in _process(core, batch):
                    _note(summary, rejects, delivery, disposition)
                summary.events += len(batch)
                progress(summary.events, raw.tell())
        if part and rejects_path:
            part.replace(rejects_path)
    finally:
        if part:
            part.unlink(missing_ok=True)  # half a list of rejects would pass for a whole one
    summary.counts.update({name: core.counts[name] for name in ("applied", "waiting", "duplicate")})
    return summary


def _process(core: Core, batch: list[Delivery]) -> list[tuple[Delivery, Disposition]]:
    """Wait for a database that is away, but not for a person: what is unfit is tried once more, on a new connection."""
    pause = Pause("backfill", 2.0, Stop())
    decided: list[tuple[Delivery, Disposition]] = []
    unfit = 0
    for _ in range(PAUSES_MAX):
        try:
            return decided + core.process(batch, carries_failures=True)
        except TransientError as error:
            batch = []  # the core has it
            core.session.close()
            decided += core.take_decided()
            unfit += isinstance(error, DatabaseUnfit)
            if unfit > UNFIT_MAX:
                raise
            pause.wait(error)
    return decided + core.process(batch, carries_failures=True)


def _note(summary: BackfillSummary, rejects: IO[str], delivery: Delivery, disposition: Disposition) -> None:
    match disposition:
        case Ack():
            return
        case DeadLetter():
            reason, detail = disposition.reason, disposition.detail
        case Retry():
            reason, detail = UNEXPECTED, f"{disposition.failure.error_class}: {disposition.failure.message}"
        case _:
            raise AssertionError(f"the core does not give {disposition!r}")
    summary.rejects[reason] += 1
    record: dict[str, object] = {"line": delivery.receipt, "reason": reason, "detail": detail}
    try:
        record["body"] = delivery.body.decode()
    except UnicodeDecodeError:
        record["body_base64"] = base64.b64encode(delivery.body).decode()
    rejects.write(literal_json(record) + "\n")


def _batches(raw: IO[bytes], path: Path, size: int, budget: Budget) -> Iterator[list[Delivery]]:
    lines = past_mark(cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw, path)
    return portions(_deliveries(lines, path.name), lambda one: budget.cost(len(one.body)), budget.most, size)


def _deliveries(lines: IO[bytes], name: str) -> Iterator[Delivery]:
    number = 0
    while line := lines.readline(BODY_BYTES_MAX + 2):
        number += 1
        while not line.endswith(b"\n") and lines.readline(BODY_BYTES_MAX):
            pass  # the rest of a line that is too long for an event: what was kept is already more than that
        if line.strip():
            yield Delivery(line.rstrip(b"\r\n"), name, "file", "", 1, receipt=number)
