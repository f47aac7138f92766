"""Writing a decided batch: one COPY or one statement a table, whatever the batch's size. The only code that inserts money.

Tables that have nothing to write are left out; none is written twice. Balances, redemption counts and unpublished marks
follow by the schema's triggers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import Connection

from incentive_fleet.events.codec import Event
from incentive_fleet.incentives.posting import Posting
from incentive_fleet.incentives.wallet import Lot, Wallet
from incentive_fleet.ledger.columns import NULL, copied_rows, copy_statement, packed_columns, unpacked
from incentive_fleet.ledger.working_set import Fact, WorkingSet

TEXTS, INTS, BIGINTS, TIMES = unpacked(), unpacked("int"), unpacked("bigint"), unpacked("timestamptz")
COPY_FACTS = copy_statement("facts", "order_id, fact, source, event_id, digest, traceparent, happened_at, data")
COPY_DECISIONS = copy_statement("decisions", "order_id, customer_id, currency, decision")
COPY_WAITING = copy_statement("waiting", "order_id, fact")
COPY_TRANSFERS = copy_statement(
    "transfers",
    "kind, debit_account, credit_account, currency, amount, customer_id, order_id, lot_no, cause, happened_at",
)
COPY_LOTS = copy_statement(
    "lots",
    "customer_id, currency, lot_no, campaign_id, amount, remaining, expired, expires_at, reissue_days, root_lot_no,"
    " reissued_from, order_id, cause, created_at",
)
COPY_REDEMPTIONS = copy_statement("redemptions", "campaign_id, customer_id, order_id, discount, redeemed_at")
COPY_OUTBOX = copy_statement("outbox", "order_id, fact, sequence, type, body")
UPDATE_ORDERS = f"""
    UPDATE orders SET progress = k.progress::json
    FROM unnest({TEXTS}, {TEXTS}) AS k (order_id, progress) WHERE orders.order_id = k.order_id
"""
UPDATE_LOTS = f"""
    UPDATE lots SET remaining = k.remaining, expired = k.expired
    FROM unnest({TEXTS}, {TEXTS}, {INTS}, {BIGINTS}, {BIGINTS})
        AS k (customer_id, currency, lot_no, remaining, expired)
    WHERE lots.customer_id = k.customer_id AND lots.currency = k.currency AND lots.lot_no = k.lot_no
"""
RELEASE_REDEMPTIONS = f"""
    UPDATE redemptions SET released_at = k.released_at
    FROM unnest({TEXTS}, {TEXTS}, {TEXTS}, {TIMES})
        AS k (campaign_id, customer_id, order_id, released_at)
    WHERE redemptions.campaign_id = k.campaign_id AND redemptions.customer_id = k.customer_id
      AND redemptions.order_id = k.order_id
"""
DELETE_WAITING = f"""
    DELETE FROM waiting USING unnest({TEXTS}, {TEXTS}) AS k (order_id, fact)
    WHERE waiting.order_id = k.order_id AND waiting.fact = k.fact
"""
INSERT_ANOMALIES = f"""
    INSERT INTO anomalies (order_id, reason, subject) SELECT * FROM unnest({TEXTS}, {TEXTS}, {TEXTS})
    ON CONFLICT DO NOTHING
"""


def write_batch(connection: Connection[Any], working: WorkingSet) -> None:
    """Write everything that a batch decided, inside the caller's transaction."""
    writes = working.writes
    copy_rows(connection, COPY_FACTS, [_fact_row(fact, event) for fact, event in writes.facts])
    copy_rows(
        connection,
        COPY_DECISIONS,
        [f"{order_id}\t{d.customer_id}\t{d.currency}\t{d.to_json()}" for order_id, d in writes.decisions.items()],
    )
    copy_rows(connection, COPY_WAITING, [f"{order_id}\t{fact}" for order_id, fact in sorted(writes.waiting)])
    _execute(connection, DELETE_WAITING, sorted(writes.waited))
    write_wallets(connection, working.wallets.values())
    write_transfers(connection, writes.postings)
    copy_rows(
        connection,
        COPY_REDEMPTIONS,
        [
            f"{campaign}\t{customer}\t{order}\t{discount}\t{at}"
            for campaign, customer, order, discount, at in writes.redemptions
        ],
    )
    _execute(connection, RELEASE_REDEMPTIONS, writes.released)
    _execute(connection, INSERT_ANOMALIES, sorted(writes.anomalies))
    _execute(
        connection,
        UPDATE_ORDERS,
        [(order_id, o.progress.to_json()) for order_id, o in working.orders.items() if o.changed and o.progress],
    )
    copy_rows(
        connection,
        COPY_OUTBOX,
        [f"{o.order_id}\t{o.fact}\t{o.sequence}\t{o.type}\t{o.body}" for o in writes.outcomes],
    )


def write_wallets(connection: Connection[Any], wallets: Iterable[Wallet]) -> None:
    """Write new lots and what has changed of the others."""
    new: list[str] = []
    changed: list[tuple[object, ...]] = []
    for wallet in wallets:
        fresh = {lot.lot_no for lot in wallet.new_lots}
        new += [_lot_row(wallet, lot) for lot in wallet.new_lots]
        for lot_no in wallet.touched - fresh:
            lot = wallet.lots[lot_no]
            changed.append((wallet.customer_id, wallet.currency, lot_no, lot.remaining, lot.expired))
    copy_rows(connection, COPY_LOTS, new)
    _execute(connection, UPDATE_LOTS, changed)


def write_transfers(connection: Connection[Any], postings: Iterable[Posting]) -> None:
    """Insert transfers; balances follow by the trigger."""
    copy_rows(connection, COPY_TRANSFERS, [_transfer_row(posting) for posting in postings])


def _fact_row(fact: Fact, event: Event) -> str:
    return (
        f"{fact.data.order_id}\t{fact.fact}\t{event.source}\t{event.id}\t\\x{event.digest.hex()}\t{_text(event.traceparent)}"
        f"\t{fact.happened_at.isoformat()}\t{event.canonical.decode()}"
    )


def _transfer_row(posting: Posting) -> str:
    kind, debit, credit, currency, amount, customer_id, order_id, lot_no, cause, happened_at = posting
    return (
        f"{kind}\t{debit}\t{credit}\t{currency}\t{amount}\t{customer_id}\t{_text(order_id)}\t{_text(lot_no)}"
        f"\t{cause}\t{happened_at.isoformat()}"
    )


def _lot_row(wallet: Wallet, lot: Lot) -> str:
    return (
        f"{wallet.customer_id}\t{wallet.currency}\t{lot.lot_no}\t{lot.campaign_id}\t{lot.amount}\t{lot.remaining}"
        f"\t{lot.expired}\t{_text(lot.expires_at)}\t{lot.reissue_days}\t{lot.root_lot_no}\t{_text(lot.reissued_from)}"
        f"\t{_text(lot.order_id)}\t{lot.cause}\t{_text(lot.created_at)}"
    )


def _text(value: object) -> object:
    return NULL if value is None else value


def copy_rows(connection: Connection[Any], statement: str, rows: Sequence[str]) -> None:
    """COPY rows into a table inside the caller's transaction; no rows is no statement."""
    if rows:
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(copied_rows(rows, width=statement.count(",") + 1))


def _execute(connection: Connection[Any], statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    if rows:
        connection.execute(statement, packed_columns(rows, len(rows[0])))
