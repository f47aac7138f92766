"""`incentives db upgrade`."""

from __future__ import annotations

import click

from incentive_fleet.brokers import registry
from incentive_fleet.cli.command_line import Group, format_option, settings
from incentive_fleet.cli.printing import emit, say
from incentive_fleet.cli.work import working


@click.group(cls=Group)
def db() -> None:
    """The database's schema."""


@db.command()
@click.option(
    "--destination",
    "destinations",
    multiple=True,
    type=click.Choice(list(registry.destinations())),
    help="Where outcomes go from now on, and nowhere else; may be repeated. Without it all stays as it is, at first every broker.",
)
@format_option
def upgrade(destinations: tuple[str, ...], output: str) -> None:
    """Apply pending migrations, as INCENTIVES_ADMIN_DATABASE_URL if that is set. Safe to repeat."""
    from incentive_fleet.ledger.migrate import upgrade as migrate
    from incentive_fleet.ledger.revision import NEWEST

    values = settings()
    with working("Migrating"):
        revision = migrate(*values.need_owner_urls(), destinations=destinations)
    newer = f", newer than this release ({NEWEST}), which goes on with it" if revision > NEWEST else ""
    told = f" Outcomes go to {' and '.join(destinations)}." if destinations else ""
    document = {"revision": revision, "destinations": list(destinations) or None}
    emit(document, output, lambda: say(f"The schema is at revision {revision}{newer}.{told}"))
