"""`incentives wallet CUSTOMER` and `incentives order ORDER`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from incentive_fleet.cli.command_line import TEXT, fail, format_option, open_reader, settings
from incentive_fleet.cli.layout import Column
from incentive_fleet.cli.printing import emit, say, say_table

if TYPE_CHECKING:
    from incentive_fleet.ledger.order_history import OrderHistory
    from incentive_fleet.ledger.wallet_statement import WalletLines, WalletStatement

FACT = ("fact", "source", "event_id", "happened_at", "recorded_at", "waiting_since")
TRANSFER = ("happened_at", "kind", "debit_account", "credit_account", "amount", "lot_no", "cause")


@click.command()
@click.argument("customer_id", type=TEXT, metavar="CUSTOMER")
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
    emit(statement, output, lambda: show_wallet(statement))


def show_wallet(statement: WalletStatement) -> None:
    """Draw a statement."""
    for lines in statement.wallets:
        debt = f", debt {lines.debt:,}" if lines.debt else ""
        say(
            (statement.customer_id, "bold"),
            f"  {lines.currency}  balance {lines.balance:,}, pending {lines.pending:,}{debt}",
        )
        _show_lots(lines)
        _show_transfers(lines)


def _show_lots(lines: WalletLines) -> None:
    amounts = (Column("amount", right=True), Column("remaining", right=True))
    rows = (
        (
            *(lot.lot_no, lot.campaign_id, f"order {lot.order_id}" if lot.order_id else lot.cause),
            *(f"{lot.amount:,}", f"{lot.remaining:,}", lot.expires_at or "never"),
        )
        for lot in lines.lots
    )
    say("")
    say_table(("lot", "campaign", "came with", *amounts, "expires"), rows)


def _show_transfers(lines: WalletLines) -> None:
    traced = any(line.trace_id for line in lines.transfers)
    changes = (Column(name, right=True) for name in ("wallet", "pending", "balance"))
    rows = (
        (
            *(line.happened_at, _signed(line.wallet_change), _signed(line.pending_change)),
            *(f"{line.balance_after:,}", line.meaning),
            *([line.trace_id or ""] if traced else ()),
        )
        for line in lines.transfers
    )
    say("")
    say_table(("happened", *changes, Column("what", prose=True), *(("trace",) if traced else ())), rows)
    say("")


@click.command()
@click.argument("order_id", type=TEXT, metavar="ORDER")
@format_option
def order(order_id: str, output: str) -> None:
    """Every fact, decision, refusal and transfer of an order: why is this balance what it is."""
    from incentive_fleet.ledger.order_history import order_history

    with open_reader(settings(), "order") as connection:
        history = order_history(connection, order_id)
    if history is None:
        fail(f"order {order_id!r}: no fact is known of it")
    emit(history, output, lambda: _show_order(history))


def _show_order(history: OrderHistory) -> None:
    standing = f"{history.standing:,} {history.currency}" if history.currency else "nothing"
    customer = history.customer_id or "(its placing has not come)"
    say((f"order {history.order_id}", "bold"), f"  customer {customer}, {standing} standing")
    _show_rows("facts", history.facts, _with_trace(history.facts, FACT))
    if history.decision is not None:
        for name in ("coupons", "earned", "refusals"):
            rows = history.decision.get(name) or []
            _show_rows(name, rows, tuple(key for key in (rows[0] if rows else {}) if key != "shares"))
        say(_credit(history.decision["credit"]))
        show_placed_and_picked(history)
    _show_rows("transfers", history.transfers, _with_trace(history.transfers, TRANSFER))
    _show_rows("redemptions", history.redemptions, tuple(history.redemptions[0]) if history.redemptions else ())
    for anomaly in history.anomalies:
        say(("anomaly", "yellow"), f" {anomaly.reason}: {anomaly.subject}")
    _show_rows("outcomes", history.outcomes, ("sequence", "type", "fact", "unpublished"))


def show_placed_and_picked(history: OrderHistory) -> None:
    """Placing and final basket side by side: each line's gross, and what each incentive was worth before and after."""
    placed, final = history.decision, history.final_basket
    if placed is None or final is None:
        return
    picked = {line["line_id"]: line["gross"] for line in final["lines"]}
    ordered = {line["line_id"]: line["gross"] for line in placed["lines"]}
    amounts = (Column("placed", right=True), Column("picked", right=True))
    say("")
    say_table(
        ("line", *amounts), ((name, ordered.get(name), picked.get(name)) for name in {**ordered, **picked}), "baskets"
    )
    say("")
    worth = ([row[name] for name in ("incentive", "placed", "picked", "because")] for row in final["worth"])
    say_table(("incentive", *amounts, Column("because", prose=True)), worth, "worth")
    if final["all_reversed"]:
        say("Nothing was booked for it: the order was cancelled or refunded whole before.")


def _with_trace(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> tuple[str, ...]:
    return (*columns, "trace_id") if any(row["trace_id"] for row in rows) else columns


def _show_rows(title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if not rows:
        return
    say("")
    say_table(columns, ([_cell(row.get(name)) for name in columns] for row in rows), title=title)


def _cell(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _credit(credit: dict[str, Any]) -> str:
    lots = ", ".join(f"{burn['amount']:,} from lot {burn['lot_no']}" for burn in credit["burned"])
    return (
        f"credit: {credit['requested']:,} requested, {credit['applied']:,} applied{f' ({lots})' if lots else ''}, "
        f"{credit['shortfall']:,} short"
    )


def _signed(amount: int) -> str:
    return f"{amount:+,}" if amount else ""
