"""Everything about one order: the answer to "why is this balance what it is". Never writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from incentive_fleet.events.times import format_time
from incentive_fleet.events.traceparent import trace_id_of
from incentive_fleet.incentives.accounts import order_account
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.ledger.anomalies import COLUMNS as ANOMALY_COLUMNS
from incentive_fleet.ledger.anomalies import AnomalyRecord, anomaly_record
from incentive_fleet.ledger.order_rows import decision_row, final_basket_row, progress_row
from incentive_fleet.ledger.snapshot import snapshot

Row = dict[str, Any]

# Each for any number of orders; `of_order` says whose a row is.
READ_FACTS = """
    SELECT f.order_id AS of_order, f.fact, f.source, f.event_id, encode(f.digest, 'hex') AS digest, f.traceparent, f.happened_at,
           f.recorded_at, w.since AS waiting_since, f.data
    FROM facts f LEFT JOIN waiting w USING (order_id, fact) WHERE f.order_id = ANY(%s)
    ORDER BY f.recorded_at, f.happened_at, f.fact
"""
READ_DECISIONS = """
    SELECT d.order_id, d.customer_id, d.currency, d.decision, f.decision, o.totals, coalesce(b.balance, 0)::bigint
    FROM unnest(%s::text[], %s::text[]) AS wanted (account, order_id) JOIN decisions d USING (order_id)
    JOIN orders o USING (order_id) LEFT JOIN final_baskets f USING (order_id)
    LEFT JOIN balances b ON b.account = wanted.account AND b.currency = d.currency AND b.slot = 0
"""
READ_TERMS = """
    SELECT v.campaign_id, v.version, v.loaded_at, v.terms
    FROM unnest(%s::text[], %s::int[]) AS k (campaign_id, version) JOIN campaign_versions v USING (campaign_id, version)
    ORDER BY v.campaign_id, v.version
"""
READ_TRANSFERS = """
    SELECT t.order_id AS of_order, t.transfer_id, t.kind, t.debit_account, t.credit_account, t.currency, t.amount, t.lot_no,
           t.cause, t.happened_at, t.booked_at,
           (SELECT traceparent FROM facts f WHERE f.order_id = t.order_id AND f.fact = t.cause) AS traceparent
    FROM unnest(%s::text[], %s::text[]) AS wanted (customer_id, order_id) JOIN transfers t USING (customer_id, order_id)
    ORDER BY t.transfer_id
"""
READ_REDEMPTIONS = """
    SELECT r.order_id AS of_order, r.campaign_id, r.discount, r.redeemed_at, r.released_at
    FROM unnest(%s::text[], %s::text[], %s::text[]) AS wanted (campaign_id, customer_id, order_id)
    JOIN redemptions r USING (campaign_id, customer_id, order_id) ORDER BY r.campaign_id
"""
READ_LOTS = """
    SELECT l.order_id AS of_order, l.lot_no, l.campaign_id, l.amount, l.remaining, l.expires_at, l.cause, l.created_at,
           l.reissued_from
    FROM unnest(%s::text[], %s::text[], %s::text[]) AS wanted (customer_id, currency, order_id)
    JOIN lots l USING (customer_id, currency, order_id) ORDER BY l.lot_no
"""
READ_ANOMALIES = f"""
    SELECT {ANOMALY_COLUMNS} FROM anomalies
    WHERE order_id = ANY(%s) ORDER BY reason, subject
"""
READ_OUTCOMES = """
    SELECT o.order_id AS of_order, o.sequence, o.type, o.fact, o.created_at, o.body,
           ARRAY(SELECT u.destination FROM outbox_unpublished u WHERE u.outbox_id = o.outbox_id ORDER BY 1) AS unpublished
    FROM outbox o WHERE o.order_id = ANY(%s) ORDER BY o.sequence
"""


@dataclass(frozen=True, slots=True)
class OrderHistory:
    """An order as plain JSON values: times RFC 3339 in UTC, amounts in minor units.

    `decision`, `progress`, `customer_id` and `currency` are None until the order is placed, `progress` also while
    nothing was refunded or delivered. `standing` is the balance of the order's account.
    """

    order_id: str
    facts: list[Row]
    anomalies: list[AnomalyRecord]
    outcomes: list[Row]
    customer_id: str | None = None
    currency: str | None = None
    standing: int = 0
    decision: Row | None = None
    final_basket: Row | None = None  # what became of an estimated order's decision; None while there is none
    terms: list[Row] = field(default_factory=list)  # the versions that the decision names
    progress: Row | None = None
    transfers: list[Row] = field(default_factory=list)
    lots: list[Row] = field(default_factory=list)  # that the order brought into the wallet
    redemptions: list[Row] = field(default_factory=list)


def order_history(connection: Connection[Any], order_id: str) -> OrderHistory | None:
    """Everything stored about an order at one moment; None when no fact of it ever came.

    Raises DatabaseUnavailable or DatabaseContention; a retry helps.
    """
    with snapshot(connection):
        return order_histories(connection, [order_id]).get(order_id)


def order_histories(connection: Connection[Any], order_ids: Iterable[str]) -> dict[str, OrderHistory]:
    """The same of each order of which any fact came, in the caller's transaction: eight statements, however many orders."""
    ids = list(order_ids)
    facts = _rows(connection, READ_FACTS, (ids,))
    known = list(facts)
    outcomes = _rows(connection, READ_OUTCOMES, (known,))
    anomalies: dict[str, list[AnomalyRecord]] = {}
    for row in connection.execute(READ_ANOMALIES, (known,)).fetchall():
        anomalies.setdefault(row[0], []).append(anomaly_record(row))
    found = {
        id: OrderHistory(order_id=id, facts=facts[id], anomalies=anomalies.get(id, []), outcomes=outcomes.get(id, []))
        for id in known
    }
    placed = connection.execute(READ_DECISIONS, ([order_account(id) for id in known], known)).fetchall()
    return found | _with_decisions(connection, found, placed)


def _with_decisions(
    connection: Connection[Any], found: dict[str, OrderHistory], placed: list[tuple[Any, ...]]
) -> dict[str, OrderHistory]:
    """Those of the orders that were placed, with what their decisions brought."""
    decided = {
        id: (Decision.from_json(customer, currency, document), customer, currency, final, totals, standing)
        for id, customer, currency, document, final, totals, standing in placed
    }
    customers = [customer for _, customer, *_ in decided.values()]
    transfers = _rows(connection, READ_TRANSFERS, (customers, list(decided)))
    currencies = [currency for _, _, currency, *_ in decided.values()]
    lots = _rows(connection, READ_LOTS, (customers, currencies, list(decided)))
    redeemed = [(c.campaign_id, one[1], id) for id, one in decided.items() for c in one[0].coupons]
    redemptions = _rows(connection, READ_REDEMPTIONS, _columns(redeemed, 3))
    named = {version for decision, *_ in decided.values() for version in _versions(decision)}
    terms = _terms(connection, named)
    complete = {}
    for id, (decision, customer, currency, document, totals, standing) in decided.items():
        final = Decision.from_json(customer, currency, document) if document else None
        complete[id] = replace(
            found[id],
            customer_id=customer,
            currency=currency,
            standing=standing,
            decision=decision_row(decision),
            final_basket=final_basket_row(decision, final) if final else None,
            terms=[terms[version] for version in sorted(_versions(decision))],
            progress=progress_row(final or decision, totals) if totals else None,
            transfers=transfers.get(id, []),
            lots=lots.get(id, []),
            redemptions=redemptions.get(id, []),
        )
    return complete


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> tuple[list[Any], ...]:
    return tuple([row[n] for row in rows] for n in range(width))


def _terms(connection: Connection[Any], named: set[tuple[str, int]]) -> dict[tuple[str, int], Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(READ_TERMS, _columns(sorted(named), 2)).fetchall()
    return {(row["campaign_id"], row["version"]): row | {"loaded_at": format_time(row["loaded_at"])} for row in rows}


def _rows(connection: Connection[Any], query: str, parameters: tuple[Any, ...]) -> dict[str, list[Row]]:
    """By order."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query.encode(), parameters).fetchall()
    found: dict[str, list[Row]] = {}
    for row in rows:
        told = {n: format_time(v) if isinstance(v, datetime) else v for n, v in row.items()}
        found.setdefault(told.pop("of_order"), []).append(_traced(told))
    return found


def _traced(row: Row) -> Row:
    """With the trace's id, to look it up by, where a row tells of one."""
    return row | {"trace_id": trace_id_of(row["traceparent"])} if "traceparent" in row else row


def _versions(decision: Decision) -> set[tuple[str, int]]:
    named = {(coupon.campaign_id, coupon.version) for coupon in decision.coupons}
    named |= {(earn.campaign_id, earn.version) for earn in decision.earned}
    for refusal in decision.refusals:
        if refusal.campaign_id is not None and refusal.version is not None:
            named.add((refusal.campaign_id, refusal.version))
    return named
