"""`incentives wallet CUSTOMER` and `incentives order ORDER`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from incentive_fleet.cli.command_line import emit, fail, format_option, open_reader, settings

if TYPE_CHECKING:
    from rich.console import Console

    from incentive_fleet.ledger.order_history import OrderHistory
    from incentive_fleet.ledger.wallet_statement import WalletLines, WalletStatement


@click.command()
@click.argument("customer_id", metavar="CUSTOMER")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Transfers shown a currency."
)
@click.option("--all-lots", is_flag=True, help="Spent and expired lots too.")
@format_option
def wallet(customer_id: str, limit: int, all_lots: bool, output: str) -> None:
    """A customer's statement: balance, lots with their expiry, the latest transfers. Amounts in minor units."""
    from incentive_fleet.ledger.wallet_statement import wallet_statement

    with open_reader(settings(), "wallet") as connection:
        statement = wallet_statement(connection, customer_id, limit=limit, all_lots=all_lots)
    if not statement.wallets:
        fail(f"customer {customer_id!r} has no wallet")
    emit(statement, output, lambda console: show_wallet(console, statement))


def show_wallet(console: Console, statement: WalletStatement) -> None:
    """Draw a statement."""
    for lines in statement.wallets:
        debt = f", debt {lines.debt:,}" if lines.debt else ""
        console.print(
            f"[bold]{statement.customer_id}[/bold]  {lines.currency}  balance {lines.balance:,}, "
            f"pending {lines.pending:,}{debt}"
        )
        console.print(_lots(lines))
        console.print(_transfers(lines))


def _lots(lines: WalletLines) -> Any:
    table = _table("lot", "campaign", "came with", ("amount", True), ("remaining", True), "expires")
    for lot in lines.lots:
        came = f"order {lot.order_id}" if lot.order_id else lot.cause
        table.add_row(
            str(lot.lot_no), lot.campaign_id, came, f"{lot.amount:,}", f"{lot.remaining:,}", lot.expires_at or "never"
        )
    return table


def _transfers(lines: WalletLines) -> Any:
    table = _table("happened", ("wallet", True), ("pending", True), ("balance", True), "what")
    for line in lines.transfers:
        table.add_row(
            line.happened_at,
            _signed(line.wallet_change),
            _signed(line.pending_change),
            f"{line.balance_after:,}",
            line.meaning,
        )
    return table


@click.command()
@click.argument("order_id", metavar="ORDER")
@format_option
def order(order_id: str, output: str) -> None:
    """Every fact, decision, refusal and transfer of an order: why is this balance what it is."""
    from incentive_fleet.ledger.order_history import order_history

    with open_reader(settings(), "order") as connection:
        history = order_history(connection, order_id)
    if history is None:
        fail(f"order {order_id!r}: no fact is known of it")
    emit(history, output, lambda console: _show_order(console, history))


def _show_order(console: Console, history: OrderHistory) -> None:
    standing = f"{history.standing:,} {history.currency}" if history.currency else "nothing"
    console.print(
        f"[bold]order {history.order_id}[/bold]  customer {history.customer_id or '(its placing has not come)'}, "
        f"{standing} standing"
    )
    _rows(
        console, "facts", history.facts, ("fact", "source", "event_id", "happened_at", "recorded_at", "waiting_since")
    )
    if history.decision is not None:
        for name in ("coupons", "earned", "refusals"):
            rows = history.decision.get(name) or []
            _rows(console, name, rows, tuple(key for key in (rows[0] if rows else {}) if key != "shares"))
        console.print(_credit(history.decision["credit"]), markup=False)
    columns = ("happened_at", "kind", "debit_account", "credit_account", "amount", "lot_no", "cause")
    _rows(console, "transfers", history.transfers, columns)
    _rows(console, "redemptions", history.redemptions, tuple(history.redemptions[0]) if history.redemptions else ())
    for anomaly in history.anomalies:
        console.print(f"[yellow]anomaly[/yellow] {anomaly.reason}: {anomaly.subject}")
    _rows(console, "outcomes", history.outcomes, ("sequence", "type", "fact", "unpublished"))


def _rows(console: Console, title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if not rows:
        return
    table = _table(*columns)
    table.title, table.title_justify = title, "left"
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    console.print(table)


def _cell(value: object) -> str:
    return "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _credit(credit: dict[str, Any]) -> str:
    lots = ", ".join(f"{burn['amount']:,} from lot {burn['lot_no']}" for burn in credit["burned"])
    return (
        f"credit: {credit['requested']:,} requested, {credit['applied']:,} applied{f' ({lots})' if lots else ''}, "
        f"{credit['shortfall']:,} short\n"
    )


def _table(*columns: str | tuple[str, bool]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        name, right = column if isinstance(column, tuple) else (column, False)
        table.add_column(name, justify="right" if right else "left")
    return table


def _signed(amount: int) -> str:
    return f"{amount:+,}" if amount else ""
