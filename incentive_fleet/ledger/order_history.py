"""Everything about one order: the answer to "why is this balance what it is". Never writes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import dict_row

from incentive_fleet.events.times import format_time
from incentive_fleet.events.traceparent import trace_id_of
from incentive_fleet.incentives.accounts import order_account
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.refusals import MEANINGS, RefusalCode
from incentive_fleet.incentives.running_totals import RunningTotals, reversed_of
from incentive_fleet.ledger.anomalies import COLUMNS as ANOMALY_COLUMNS
from incentive_fleet.ledger.anomalies import AnomalyRecord, anomaly_record
from incentive_fleet.ledger.snapshot import snapshot

Row = dict[str, Any]

READ_FACTS = """
    SELECT f.fact, f.source, f.event_id, encode(f.digest, 'hex') AS digest, f.traceparent, f.happened_at, f.recorded_at,
           w.since AS waiting_since, f.data
    FROM facts f LEFT JOIN waiting w USING (order_id, fact) WHERE f.order_id = %s ORDER BY f.recorded_at, f.happened_at, f.fact
"""
READ_DECISION = """
    SELECT d.customer_id, d.currency, d.decision, f.decision, o.totals, coalesce(b.balance, 0)::bigint
    FROM decisions d JOIN orders o USING (order_id) LEFT JOIN final_baskets f USING (order_id)
    LEFT JOIN balances b ON b.account = %s AND b.currency = d.currency AND b.slot = 0 WHERE d.order_id = %s
"""
READ_TERMS = """
    SELECT v.campaign_id, v.version, v.loaded_at, v.terms
    FROM unnest(%s::text[], %s::int[]) AS k (campaign_id, version) JOIN campaign_versions v USING (campaign_id, version)
    ORDER BY v.campaign_id, v.version
"""
READ_TRANSFERS = """
    SELECT t.transfer_id, t.kind, t.debit_account, t.credit_account, t.currency, t.amount, t.lot_no, t.cause, t.happened_at,
           t.booked_at, (SELECT traceparent FROM facts f WHERE f.order_id = t.order_id AND f.fact = t.cause) AS traceparent
    FROM transfers t
    WHERE t.customer_id = %s AND t.order_id = %s ORDER BY t.transfer_id
"""
READ_REDEMPTIONS = """
    SELECT campaign_id, discount, redeemed_at, released_at FROM redemptions
    WHERE campaign_id = ANY(%s) AND customer_id = %s AND order_id = %s ORDER BY campaign_id
"""
READ_LOTS = """
    SELECT lot_no, campaign_id, amount, remaining, expires_at, cause, created_at, reissued_from FROM lots
    WHERE customer_id = %s AND currency = %s AND order_id = %s ORDER BY lot_no
"""
READ_ANOMALIES = f"""
    SELECT {ANOMALY_COLUMNS} FROM anomalies
    WHERE order_id = %s ORDER BY reason, subject
"""
READ_OUTCOMES = """
    SELECT o.sequence, o.type, o.fact, o.created_at, o.body,
           ARRAY(SELECT u.destination FROM outbox_unpublished u WHERE u.outbox_id = o.outbox_id ORDER BY 1) AS unpublished
    FROM outbox o WHERE o.order_id = %s ORDER BY o.sequence
"""
WORTH_NO_MORE: Final = {
    RefusalCode.BELOW_MINIMUM: "no line that it is for was picked, or a minimum is missed",
    RefusalCode.NO_DISCOUNT: "it comes to nothing on what was picked",
    RefusalCode.BUDGET_EXHAUSTED: "the campaign's budget bears no more than before",
}


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
        facts = _rows(connection, READ_FACTS, (order_id,))
        if not facts:
            return None
        history = OrderHistory(
            order_id=order_id,
            facts=facts,
            anomalies=[anomaly_record(row) for row in connection.execute(READ_ANOMALIES, (order_id,)).fetchall()],
            outcomes=_rows(connection, READ_OUTCOMES, (order_id,)),
        )
        placed = connection.execute(READ_DECISION, (order_account(order_id), order_id)).fetchone()
        if placed is None:
            return history
        customer_id, currency, document, final_document, totals, standing = placed
        decision = Decision.from_json(customer_id, currency, document)
        final = Decision.from_json(customer_id, currency, final_document) if final_document else None
        coupons = [coupon.campaign_id for coupon in decision.coupons]
        return replace(
            history,
            customer_id=customer_id,
            currency=currency,
            standing=standing,
            decision=_decision(decision),
            final_basket=_final_basket(decision, final) if final else None,
            terms=_rows(connection, READ_TERMS, _versions(decision)),
            progress=_progress(final or decision, totals) if totals else None,
            transfers=_rows(connection, READ_TRANSFERS, (customer_id, order_id)),
            lots=_rows(connection, READ_LOTS, (customer_id, currency, order_id)),
            redemptions=_rows(connection, READ_REDEMPTIONS, (coupons, customer_id, order_id)),
        )


def _rows(connection: Connection[Any], query: str, parameters: tuple[Any, ...]) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query.encode(), parameters).fetchall()
    return [_traced({n: format_time(v) if isinstance(v, datetime) else v for n, v in row.items()}) for row in rows]


def _traced(row: Row) -> Row:
    """With the trace's id, to look it up by, where a row tells of one."""
    return row | {"trace_id": trace_id_of(row["traceparent"])} if "traceparent" in row else row


def _versions(decision: Decision) -> tuple[list[str], list[int]]:
    named = {(coupon.campaign_id, coupon.version) for coupon in decision.coupons}
    named |= {(earn.campaign_id, earn.version) for earn in decision.earned}
    for refusal in decision.refusals:
        if refusal.campaign_id is not None and refusal.version is not None:
            named.add((refusal.campaign_id, refusal.version))
    return [campaign_id for campaign_id, _ in named], [version for _, version in named]


def _decision(decision: Decision) -> Row:
    """The decision with the lines that its shares run over."""
    credit = decision.credit
    return {
        "lines": [
            {"line_id": line_id, "unit_price": price, "gross": gross}
            for line_id, price, gross in zip(decision.line_ids, decision.unit_prices, decision.gross, strict=True)
        ],
        "coupons": [
            {
                "code": c.code,
                "campaign_id": c.campaign_id,
                "version": c.version,
                "discount": c.discount,
                "shares": c.shares,
            }
            for c in decision.coupons
        ],
        "credit": {
            "requested": credit.requested,
            "applied": credit.applied,
            "shortfall": credit.shortfall,
            "shares": credit.shares,
            "burned": [{"lot_no": b.lot_no, "amount": b.amount} for b in credit.burned],
        },
        "earned": [
            {
                "campaign_id": e.campaign_id,
                "version": e.version,
                "amount": e.amount,
                "shares": e.shares,
                "valid_days": e.valid_days,
                "reissue_days": e.reissue_days,
            }
            for e in decision.earned
        ],
        "refusals": [
            {
                "code": r.code or None,
                "campaign_id": r.campaign_id,
                "version": r.version,
                "reason": r.reason,
                "because": MEANINGS[r.reason],
            }
            for r in decision.refusals
        ],
    }


def _final_basket(placed: Decision, final: Decision) -> Row:
    """The final basket's decision, with what each incentive was worth at the placing, what it is worth now, and why."""
    coupons = zip(placed.coupons, final.coupons, strict=True)
    earned = zip(placed.earned, final.earned, strict=True)
    worth = [
        *(_worth(was.code or was.campaign_id, was.discount, now.discount, now.limit) for was, now in coupons),
        *(_worth(was.campaign_id, was.amount, now.amount, now.limit) for was, now in earned),
        _worth("credit", placed.credit.applied, final.credit.applied, None),
    ]
    return _decision(final) | {"worth": worth, "all_reversed": final.all_reversed}


def _worth(incentive: str, placed: int, picked: int, limit: RefusalCode | None) -> Row:
    because = WORTH_NO_MORE[limit] if limit else None
    if limit is None and placed != picked:
        because = f"the lines that it is for are worth {'more' if picked > placed else 'less'}"
    return {"incentive": incentive, "placed": placed, "picked": picked, "because": because}


def _progress(decision: Decision, document: Row) -> Row:
    """How much of the order was taken back: value per line, and how much of each incentive that reversed."""
    totals = RunningTotals.from_json(document, len(decision.line_ids))
    gone = totals.reversed_value(decision.gross)
    return {
        "fully_refunded": totals.fully_refunded,
        "cancelled": totals.cancelled,
        "delivered_at": format_time(totals.delivered_at) if totals.delivered_at else None,
        "lines": [
            {
                "line_id": line_id,
                "undelivered": totals.undelivered.get(line, 0),
                "refunded_undelivered": totals.refunded_undelivered.get(line, 0),
                "returned": totals.returned.get(line, 0),
                "reversed_value": gone[line],
            }
            for line, line_id in enumerate(decision.line_ids)
        ],
        "reversed": {
            "coupons": [
                {"campaign_id": c.campaign_id, "amount": reversed_of(c.shares, decision.gross, gone)}
                for c in decision.coupons
            ],
            "credit": reversed_of(decision.credit.shares, decision.gross, gone) if decision.credit.applied else 0,
            "earned": [
                {"campaign_id": e.campaign_id, "amount": reversed_of(e.shares, decision.gross, gone)}
                for e in decision.earned
            ],
        },
        "vested": [
            {
                "campaign_id": v.campaign_id,
                "lot_no": v.lot_no or None,
                "reversed_before": v.reversed_before,
                "clawed_back": v.clawed_back,
            }
            for v in totals.vested
        ],
    }
