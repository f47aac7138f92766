"""Writing a decided batch: one statement a table, whatever the batch's size. The only code that inserts money.

Tables that have nothing to write are left out; none is written twice. Wallets, balances, redemption counts and unpublished
marks follow by the schema's triggers. Updates find their rows by `= ANY (ARRAY[key])`, which no planner turns into reading
the whole table (ADR 11).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from psycopg import Connection

from incentive_fleet.incentives.anomalies import AnomalyReason
from incentive_fleet.incentives.booking import Posting
from incentive_fleet.incentives.wallet import Wallet
from incentive_fleet.ledger.columns import Table, packed_rows, unpacked_rows
from incentive_fleet.ledger.conditions import CodeRow, CountingRow
from incentive_fleet.ledger.rows import (
    DECISIONS,
    FACTS,
    FINAL_BASKETS,
    GRANTS,
    LOTS,
    OUTBOX,
    REDEMPTIONS,
    TRANSFERS,
    WAITING,
    AnomalyRow,
    DecisionRow,
    FinalBasketRow,
    LotChangeRow,
    LotRow,
    ReleaseRow,
    TotalsRow,
    WaitingRow,
)
from incentive_fleet.ledger.working_set import WorkingSet

BIGINT_MAX = 2**63 - 1  # what several entries of refunds claim together can be more
UPDATE_TOTALS = f"""
    UPDATE orders SET totals = k.totals::json FROM {unpacked_rows(TotalsRow)}
    WHERE orders.order_id = ANY (ARRAY[k.order_id])
"""
UPDATE_LOTS = f"""
    UPDATE lots SET remaining = k.remaining, expired = k.expired FROM {unpacked_rows(LotChangeRow)}
    WHERE lots.customer_id = ANY (ARRAY[k.customer_id]) AND lots.currency = k.currency AND lots.lot_no = k.lot_no
"""
RELEASE_REDEMPTIONS = f"""
    UPDATE redemptions SET released_at = k.released_at FROM {unpacked_rows(ReleaseRow)}
    WHERE redemptions.campaign_id = ANY (ARRAY[k.campaign_id]) AND redemptions.customer_id = k.customer_id
      AND redemptions.order_id = k.order_id
"""
UPDATE_CODES = f"""
    UPDATE codes SET order_id = k.order_id FROM {unpacked_rows(CodeRow)} WHERE codes.code = ANY (ARRAY[k.code])
"""
COUNTING_CHANGES = f"""
    INSERT INTO counting_changes (order_id, customer_id, currency, counts)
    SELECT order_id, customer_id, currency, counts FROM {unpacked_rows(CountingRow)}
    ON CONFLICT (order_id) DO UPDATE SET counts = excluded.counts
"""
DELETE_WAITING = f"""
    DELETE FROM waiting USING {unpacked_rows(WaitingRow)}
    WHERE waiting.order_id = ANY (ARRAY[k.order_id]) AND waiting.fact = k.fact
"""
# One that was resolved is open again when more is claimed than its resolution knew of; an unknown line has no measure, so
# there every further claim is more.
INSERT_ANOMALIES = f"""
    INSERT INTO anomalies AS known (order_id, reason, subject, claimed)
    SELECT order_id, reason, subject, claimed FROM {unpacked_rows(AnomalyRow)}
    ON CONFLICT (order_id, reason, subject) DO UPDATE
    SET claimed = excluded.claimed, resolved_at = NULL, resolved_by = NULL, resolution = NULL,
        noticed_at = CASE WHEN known.resolved_at IS NULL THEN known.noticed_at ELSE now() END
    WHERE excluded.claimed > known.claimed OR (excluded.claimed IS NULL AND known.resolved_at IS NOT NULL)
"""

Change = tuple[Table | str, Sequence[tuple[Any, ...]]]  # rows to insert, or a statement's


def write(connection: Connection[Any], changes: Iterable[Change], *, by_copy: bool = True) -> None:
    """Write inside the caller's transaction; nothing for a table is no statement. Without `by_copy` nothing is waited for
    when the caller is in pipeline mode, where COPY is not to be had."""
    for target, rows in changes:
        if not rows:
            continue
        if isinstance(target, str):
            connection.execute(target, packed_rows(rows))
        elif by_copy:
            with connection.cursor() as cursor, cursor.copy(target.copy) as copy:
                copy.write(target.copied(rows))
        else:
            connection.execute(target.insert, packed_rows(rows))


def batch_changes(working: WorkingSet) -> Iterator[Change]:
    """Everything that a batch decided."""
    writes = working.writes
    yield FACTS, writes.facts
    yield DECISIONS, [DecisionRow.of(order_id, decision) for order_id, decision in writes.decisions.items()]
    yield (
        FINAL_BASKETS,
        [FinalBasketRow(order_id, basket.to_json()) for order_id, basket in writes.final_baskets.items()],
    )
    yield COUNTING_CHANGES, list(writes.counting.values())
    yield WAITING, sorted(writes.waiting)
    yield DELETE_WAITING, sorted(writes.waited)
    yield from wallet_changes(working.wallets.values())
    yield transfer_changes(writes.postings)
    yield GRANTS, writes.grants
    yield REDEMPTIONS, writes.redemptions
    yield RELEASE_REDEMPTIONS, writes.released
    yield UPDATE_CODES, [CodeRow(code, order_id) for code, order_id in sorted(writes.codes.items())]
    yield INSERT_ANOMALIES, [_anomaly_row(working, *anomaly) for anomaly in sorted(writes.anomalies)]
    yield (
        UPDATE_TOTALS,
        [
            TotalsRow(order_id, order.progress.totals.to_json())
            for order_id, order in working.orders.items()
            if order.changed and order.progress
        ],
    )
    yield OUTBOX, writes.outcomes


def wallet_changes(wallets: Iterable[Wallet]) -> Iterator[Change]:
    """New lots, and what has changed of the others."""
    new: list[LotRow] = []
    changed: list[LotChangeRow] = []
    for wallet in wallets:
        fresh = {lot.lot_no for lot in wallet.new_lots}
        new += [LotRow.of(wallet, lot) for lot in wallet.new_lots]
        for lot_no in wallet.touched - fresh:
            lot = wallet.lots[lot_no]
            changed.append(LotChangeRow(wallet.customer_id, wallet.currency, lot_no, lot.remaining, lot.expired))
    yield LOTS, new
    yield UPDATE_LOTS, changed


def transfer_changes(postings: Sequence[Posting]) -> Change:
    """Transfers; balances follow by the trigger."""
    return TRANSFERS, postings


def _anomaly_row(working: WorkingSet, order_id: str, reason: str, subject: str) -> AnomalyRow:
    progress, claimed = working.orders[order_id].progress, None
    if reason == AnomalyReason.EXCEEDS_GROSS and progress:
        claimed = min(progress.totals.claimed(progress.counts.line_ids.index(subject)), BIGINT_MAX)
    return AnomalyRow(order_id, reason, subject, claimed)
