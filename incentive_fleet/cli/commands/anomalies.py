"""`incentives anomalies` and `anomalies resolve`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from incentive_fleet.cli.command_line import TEXT, Group, actor_option, format_option, login_name, open_reader, settings
from incentive_fleet.cli.layout import Column
from incentive_fleet.cli.printing import emit, say, say_table

if TYPE_CHECKING:
    from incentive_fleet.ledger.anomalies import AnomalyRecord


@click.group(cls=Group, invoke_without_command=True)
@click.option("--all", "include_resolved", is_flag=True, help="Resolved ones too.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Rows at the most.")
@format_option
@click.pass_context
def anomalies(ctx: click.Context, /, include_resolved: bool, limit: int, output: str) -> None:
    """Orders that a person should look at: refunds of more than was bought, of unknown lines, in another currency."""
    if ctx.invoked_subcommand is not None:
        return
    from incentive_fleet.ledger.anomalies import list_anomalies

    with open_reader(settings(), "anomalies") as connection:
        records = list_anomalies(connection, limit=limit, include_resolved=include_resolved)
    emit({"anomalies": records}, output, lambda: _show(records))


def _show(records: list[AnomalyRecord]) -> None:
    columns = ("order", "reason", "subject", "noticed", Column("resolved", prose=True))
    rows = [
        (
            *(one.order_id, one.reason, one.subject, one.noticed_at),
            _resolved(one),
        )
        for one in records
    ]
    say_table(columns, rows)
    if not records:
        say("None is open.")


def _resolved(one: AnomalyRecord) -> str | None:
    if one.resolved_at:
        return f"{one.resolved_at} by {one.resolved_by}: {one.resolution}"
    if one.earlier:
        last = one.earlier[-1]
        return f"open again; {last.resolved_at} by {last.resolved_by}: {last.resolution}"
    return None


@anomalies.command()
@click.argument("order_id", type=TEXT)
@click.argument("reason_code", type=TEXT)
@click.argument("subject", type=TEXT)
@click.option("--reason", type=TEXT, required=True, help="What came of it; kept with the anomaly.")
@actor_option
@format_option
def resolve(order_id: str, reason_code: str, subject: str, reason: str, actor: str | None, output: str) -> None:
    """Resolve an anomaly: ORDER_ID REASON_CODE SUBJECT as `incentives anomalies` lists them."""
    from incentive_fleet.ledger.anomalies import AnomalyKey, resolve_anomaly
    from incentive_fleet.ledger.people import actor_of

    with open_reader(settings(), "anomalies resolve") as connection:
        anomaly = AnomalyKey(order_id, reason_code, subject)
        acting = actor_of(connection, actor, login_name())
        record = resolve_anomaly(connection, anomaly, acting, reason, datetime.now(UTC))
    emit(record, output, lambda: say(f"{order_id}: {reason_code} {subject} is resolved."))
