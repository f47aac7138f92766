"""`incentives publish FILE --to sns|rabbitmq`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from incentive_fleet.brokers import registry
from incentive_fleet.cli import interrupts
from incentive_fleet.cli.command_line import existing_file, fail, format_option, settings
from incentive_fleet.cli.printing import emit, say, tell
from incentive_fleet.cli.work import working


@click.command()
@click.argument("file", type=existing_file)
@click.option(
    "--to", "destination", type=click.Choice(list(registry.destinations())), required=True, help="Which broker."
)
@click.option(
    "--rate", type=click.FloatRange(0.1, 1_000_000), help="Events per second; as fast as it goes, if not given."
)
@click.option("--skip-bad", is_flag=True, help="Send the good lines although others are bad.")
@click.option("--raw", is_flag=True, help="Send lines unchecked.")
@format_option
def publish(file: Path, destination: str, rate: float | None, skip_bad: bool, raw: bool, output: str) -> None:
    """Publish the CloudEvents of FILE.jsonl[.gz], a line each. The whole file is checked first; a bad line is named."""
    from incentive_fleet.producers.event_file import publish_file

    broker = registry.by_destination(destination)
    with (
        closing(registry.open_events(settings(), broker, interrupts.stop_of_process())) as publisher,
        working("Publishing") as progress,
    ):
        summary = publish_file(
            file,
            publisher,
            rate=rate,
            skip_bad=skip_bad,
            raw=raw,
            progress=lambda phase, done, total: progress(done, _note(phase, done, total)),
        )
    per_second = summary.published / summary.seconds if summary.seconds else 0.0
    emit(
        summary,
        output,
        lambda: say(
            f"{summary.published} of {summary.lines} lines published and confirmed in {summary.seconds:.1f} s "
            f"({per_second:,.0f}/s); {summary.bad} bad, {summary.failed} failed."
        ),
    )
    named = [
        f"line {line.number}: {line.reason}: {line.detail}" for line in (*summary.bad_lines, *summary.failed_lines)
    ]
    if not summary.ok:
        nothing = ["nothing was sent; --skip-bad sends the good lines"] if summary.bad and not skip_bad else []
        fail(f"{file}: {summary.bad} bad lines, {summary.failed} failed", more=[*nothing, *named])
    for line in named:
        tell(f"{file}: {line}")


def _note(phase: str, done: int, total: int | None) -> str:
    if phase == "check":
        return f"{done:,} lines are checked, none is sent yet"
    return f"{done:,} of {total:,} events are answered for by the broker, the others are not"
