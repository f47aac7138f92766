"""`incentives backfill FILE`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import click

from incentive_fleet.cli.command_line import existing_file, fail, format_option, open_session, settings
from incentive_fleet.cli.printing import emit, say
from incentive_fleet.cli.work import working
from incentive_fleet.errors import SchemaUnfit, TransientError


@click.command("backfill")
@click.argument("file", type=existing_file)
@click.option(
    "--rejects", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="JSON lines, one a reject."
)
@click.option("--strict", is_flag=True, help="Exit 1 when anything was rejected.")
@format_option
def backfill_command(file: Path, rejects: Path | None, strict: bool, output: str) -> None:
    """Apply the events of FILE.jsonl[.gz] in its order, through the same core, without a broker. Safe to repeat."""
    from incentive_fleet.brokers.budget import Budget
    from incentive_fleet.consumers.admission import admission_of
    from incentive_fleet.consumers.backfill import backfill
    from incentive_fleet.consumers.core import Core
    from incentive_fleet.consumers.garbage import look_seldom
    from incentive_fleet.text_files import UNREADABLE

    if rejects is not None and not rejects.parent.is_dir():
        fail(f"--rejects is {str(rejects)!r}: its folder does not exist", code=2)
    values = settings()
    size = file.stat().st_size
    started = time.perf_counter()
    with open_session(values, "backfill") as session, working("Backfilling", size) as progress:
        core = Core(
            session,
            values.retry_delays_s,
            clock=lambda: datetime.now(UTC),
            event_bytes_max=values.event_bytes_max,
            admission=admission_of(values),
        )
        budget = Budget(values.held_bytes_max, values.event_bytes_max)
        look_seldom()

        def show(events: int, bytes_read: int) -> None:
            progress(bytes_read, f"{events:,} events are done with, {events / (time.perf_counter() - started):,.0f}/s")

        try:
            summary = backfill(
                core, file, batch_size=values.batch_size, budget=budget, rejects_path=rejects, progress=show
            )
        except UNREADABLE as error:
            fail(f"{file}: cannot be read: {error}; what came before is applied, and backfilling again is safe")
        except SchemaUnfit:
            raise
        except TransientError as error:
            fail(f"{file}: stopped: {error}; what came before is applied, and backfilling again is safe")
    seconds = time.perf_counter() - started
    document = {
        "events": summary.events,
        "applied": summary.counts["applied"],
        "waiting": summary.counts["waiting"],
        "duplicates": summary.counts["duplicate"],
        "rejected": dict(sorted(summary.rejects.items())),
        "seconds": round(seconds, 3),
        "events_per_second": round(summary.events / seconds, 1),
    }
    rejected = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.rejects.items())) or "none"
    emit(
        document,
        output,
        lambda: say(
            f"{summary.events} events in {seconds:.1f} s ({document['events_per_second']:,}/s): "
            f"{document['applied']} applied, {document['waiting']} wait for their order, "
            f"{document['duplicates']} duplicates; rejected: {rejected}."
        ),
    )
    if strict and summary.rejects:
        raise SystemExit(1)
