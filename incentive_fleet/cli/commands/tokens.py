"""`incentives tokens`: who may ask the console's API, as a program."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from incentive_fleet.cli.command_line import TEXT, Group, actor_option, format_option, login_name, open_reader, settings
from incentive_fleet.cli.printing import emit, say, say_table


@click.group(cls=Group)
def tokens() -> None:
    """Tokens of the console's API: make, list, revoke."""


@tokens.command()
@click.option("--name", type=TEXT, required=True, help="Who acts with it, in the trail of what is done.")
@click.option(
    "--role", "roles", type=TEXT, multiple=True, required=True, help="One of the four roles; may be repeated."
)
@click.option("--days", type=int, default=90, show_default=True, help="For how long it is good, 366 at the most.")
@actor_option
@format_option
def create(name: str, roles: tuple[str, ...], days: int, actor: str | None, output: str) -> None:
    """Make a token and print it. It is printed once: the database keeps its hash alone."""
    from incentive_fleet.ledger.api_tokens import create_token
    from incentive_fleet.ledger.people import actor_of

    with open_reader(settings(), "tokens create") as connection:
        acting = actor_of(connection, actor, login_name())
        kept, token = create_token(connection, name, roles, acting, datetime.now(UTC), days)
    document = {
        "token": token,
        "token_id": kept.token_id,
        "name": name,
        "roles": kept.roles,
        "expires_at": kept.expires_at,
    }
    emit(document, output, lambda: say(token))


@tokens.command(name="list")
@format_option
def list_them(output: str) -> None:
    """List the newest 1,000 tokens, the revoked ones too, without their secrets."""
    from incentive_fleet.ledger.api_tokens import list_tokens

    with open_reader(settings(), "tokens list") as connection:
        found = list_tokens(connection)
    columns = ("token_id", "name", "roles", "created_by", "expires_at", "revoked_at")
    rows = (
        (one.token_id, one.name, ", ".join(one.roles), one.created_by, one.expires_at, one.revoked_at) for one in found
    )
    emit({"tokens": found}, output, lambda: say_table(columns, rows))


@tokens.command()
@click.argument("token_id", type=TEXT, metavar="TOKEN_ID")
@actor_option
@format_option
def revoke(token_id: str, actor: str | None, output: str) -> None:
    """Let the token TOKEN_ID be good for nothing, ten seconds from now at the latest. Safe to repeat."""
    from incentive_fleet.ledger.api_tokens import revoke_token
    from incentive_fleet.ledger.people import actor_of

    with open_reader(settings(), "tokens revoke") as connection:
        acting = actor_of(connection, actor, login_name())
        by, at = revoke_token(connection, token_id, acting, datetime.now(UTC))
    emit(
        {"token_id": token_id, "revoked_by": by, "revoked_at": at}, output, lambda: say(f"{token_id}: revoked by {by}")
    )
