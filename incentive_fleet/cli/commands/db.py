"""`incentives db upgrade`."""

from __future__ import annotations

import click

from incentive_fleet.cli.command_line import Group, format_option, settings
from incentive_fleet.cli.printing import emit, say
from incentive_fleet.cli.work import working


@click.group(cls=Group)
def db() -> None:
    """The database's schema."""


@db.command()
@format_option
def upgrade(output: str) -> None:
    """Apply pending migrations, as INCENTIVES_ADMIN_DATABASE_URL if that is set. Safe to repeat."""
    from incentive_fleet.ledger.migrate import upgrade as migrate
    from incentive_fleet.ledger.revision import NEWEST

    values = settings()
    with working("Migrating"):
        revision = migrate(*values.need_owner_urls())
    newer = f", newer than this release ({NEWEST}), which goes on with it" if revision > NEWEST else ""
    emit({"revision": revision}, output, lambda: say(f"The schema is at revision {revision}{newer}."))
