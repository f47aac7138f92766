"""`incentives campaigns load` and `list`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from incentive_fleet.cli.command_line import Group, existing_file, fail, format_option, open_reader, settings
from incentive_fleet.cli.layout import Column
from incentive_fleet.cli.printing import emit, say, say_table
from incentive_fleet.cli.work import working


@click.group(cls=Group)
def campaigns() -> None:
    """Load and list campaign terms."""


@campaigns.command()
@click.argument("file", type=existing_file)
@format_option
def load(file: Path, output: str) -> None:
    """Load FILE.toml, all or nothing. Campaigns that it does not name stay as they are. Safe to repeat."""
    from incentive_fleet.incentives.campaign_file import CampaignFileError, parse_campaigns
    from incentive_fleet.ledger.terms import load_campaigns
    from incentive_fleet.text_files import UNREADABLE, read_text

    try:
        parsed = parse_campaigns(read_text(file))
        with open_reader(settings(), "campaigns load") as connection, working("Loading"):
            summary = load_campaigns(connection, parsed)
    except UNREADABLE as error:
        fail(f"{file}: cannot be read: {error}; nothing was loaded")
    except CampaignFileError as error:
        fail(f"{file}: nothing was loaded", more=[f"  {problem}" for problem in error.problems])
    emit(
        summary,
        output,
        lambda: say(f"{summary.added} added, {summary.changed} changed, {summary.unchanged} as they were."),
    )


@campaigns.command("list")
@format_option
def list_command(output: str) -> None:
    """Every campaign with its current version, net spend and live redemptions."""
    from incentive_fleet.ledger.campaign_reports import list_campaigns

    with open_reader(settings(), "campaigns list") as connection:
        rows = list_campaigns(connection)
    emit({"campaigns": rows}, output, lambda: _show(rows))


def _show(rows: list[dict[str, Any]]) -> None:
    numbers = (Column(name, right=True) for name in ("version", "net spend", "budget", "live", "total"))
    cells = (
        (
            *(row["campaign_id"], row["terms"]["kind"], row["terms"].get("code"), row["terms"]["currency"]),
            f"{row['terms']['starts_at'][:10]} to {row['terms']['ends_at'][:10]}",
            *(row["version"], row["net_spend"], row["terms"].get("budget")),
            *(row["live_redemptions"], row["terms"].get("total")),
        )
        for row in rows
    )
    say_table(("campaign", "kind", "code", "currency", "window", *numbers), cells)
    if not rows:
        say("No campaign is loaded.")
