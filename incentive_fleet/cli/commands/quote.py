"""`incentives quote FILE`."""

from __future__ import annotations

from pathlib import Path

import click

from incentive_fleet.cli.command_line import existing_file, fail, lines_option, open_session, settings
from incentive_fleet.cli.printing import say_json_line
from incentive_fleet.cli.work import working

SHOWN_MAX = 20  # refused lines that are named


@click.command("quote")
@click.argument("file", type=existing_file)
@lines_option
def quote_command(file: Path) -> None:
    """Answer the quote requests of FILE.jsonl[.gz], one CloudEvent a line. It writes nothing; a line that is none: exit 1."""
    from incentive_fleet.consumers.admission import admission_of
    from incentive_fleet.errors import Malformed
    from incentive_fleet.events.codec import decode_quote
    from incentive_fleet.events.models import QUOTE_TYPE
    from incentive_fleet.ledger.quoting import quote, reply
    from incentive_fleet.text_files import UNREADABLE, read_lines

    refused: list[str] = []
    try:
        admission = admission_of(settings())
        with open_session(settings(), "quote") as session, working("Quoting", prints=True) as progress:
            for number, line in read_lines(file):
                progress(number, f"{number:,} lines are read")
                try:
                    request, source, traceparent = decode_quote(line)
                    if admission is not None:
                        admission.check(source, QUOTE_TYPE, "")
                except Malformed as error:
                    refused.append(f"line {number}: {error.reason}: {error.detail}")
                    continue
                say_json_line(reply(quote(session, request), traceparent))
    except UNREADABLE as error:
        fail(f"{file}: cannot be read: {error}; what came before is answered")
    if refused:
        more = [f"and {len(refused) - SHOWN_MAX} more"] if len(refused) > SHOWN_MAX else []
        fail(f"{file}: {len(refused)} lines are no quote requests", more=[*refused[:SHOWN_MAX], *more])
