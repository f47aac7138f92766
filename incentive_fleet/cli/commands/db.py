"""`incentives db upgrade`."""

from __future__ import annotations

import click

from incentive_fleet.cli.command_line import Group, format_option, settings
from incentive_fleet.cli.printing import emit, say


@click.group(cls=Group)
def db() -> None:
    """The database's schema."""


@db.command()
@format_option
def upgrade(output: str) -> None:
    """Apply pending migrations, as INCENTIVES_ADMIN_DATABASE_URL if that is set. Safe to repeat."""
    from psycopg.conninfo import conninfo_to_dict

    from incentive_fleet.ledger.migrate import upgrade as migrate

    values = settings()
    application = values.need_database_url()
    user = conninfo_to_dict(application).get("user") if values.admin_database_url else None
    revision = migrate(values.admin_database_url or application, str(user) if user else None)
    emit({"revision": revision}, output, lambda: say(f"The schema is at revision {revision}."))
