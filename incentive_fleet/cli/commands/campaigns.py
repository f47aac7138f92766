"""`incentives campaigns load` and `list`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from incentive_fleet.cli.command_line import emit, existing_file, fail, format_option, open_reader, settings


@click.group()
def campaigns() -> None:
    """Load and list campaign terms."""


@campaigns.command()
@click.argument("file", type=existing_file)
@format_option
def load(file: Path, output: str) -> None:
    """Load FILE.toml, all or nothing. Campaigns that it does not name stay as they are. Safe to repeat."""
    from incentive_fleet.incentives.campaign_file import CampaignFileError, parse_campaigns
    from incentive_fleet.ledger.terms import load_campaigns

    try:
        parsed = parse_campaigns(file.read_text(encoding="utf-8"))
        with open_reader(settings(), "campaigns load") as connection:
            summary = load_campaigns(connection, parsed)
    except UnicodeDecodeError as error:
        fail(f"{file}: not UTF-8 at byte {error.start}; nothing was loaded")
    except CampaignFileError as error:
        fail("\n".join([f"{file}: nothing was loaded", *(f"  {problem}" for problem in error.problems)]))
    emit(
        summary,
        output,
        lambda console: console.print(
            f"{summary.added} added, {summary.changed} changed, {summary.unchanged} as they were."
        ),
    )


@campaigns.command("list")
@format_option
def list_command(output: str) -> None:
    """Every campaign with its current version, net spend and live redemptions."""
    from incentive_fleet.ledger.terms import list_campaigns

    with open_reader(settings(), "campaigns list") as connection:
        rows = list_campaigns(connection)
    emit({"campaigns": rows}, output, lambda console: console.print(_table(rows)))


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table("campaign", "kind", "code", "currency", "window", "version", "net spend", "budget", "live", "total")
    for row in rows:
        terms = row["terms"]
        table.add_row(
            row["campaign_id"],
            terms["kind"],
            terms.get("code", ""),
            terms["currency"],
            f"{terms['starts_at'][:10]} to {terms['ends_at'][:10]}",
            str(row["version"]),
            str(row["net_spend"]),
            str(terms.get("budget", "")),
            str(row["live_redemptions"]),
            str(terms.get("total", "")),
        )
    return table
