"""The limit: the rows that a run wrote, already in memory, written by psycopg's `copy.write_row` and nothing else.

One process, the same schema with its indexes, constraints and triggers (balances, redemption counts and unpublished marks
follow by them), one COMMIT a batch of the same size. Each row is written once, in its final state: what the run inserted
and changed later costs the limit less than it cost the run.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import psycopg

from incentive_fleet.ledger.connection import connect

Row = tuple[Any, ...]

# Table, its columns as the run writes them, and what ties a row to the fact that made it.
TABLES = (
    ("orders", "order_id, totals::text", "order_id, 'placing'"),
    (
        "facts",
        "order_id, fact, source, event_id, digest, traceparent, happened_at, data::text",
        "order_id, fact",
    ),
    ("decisions", "order_id, customer_id, currency, decision::text", "order_id, 'placing'"),
    ("final_baskets", "order_id, decision::text", "order_id, 'final-basket'"),
    (
        "lots",
        "customer_id, currency, lot_no, campaign_id, amount, remaining, expired, expires_at, reissue_days, root_lot_no,"
        " reissued_from, order_id, cause, created_at",
        "order_id, cause",
    ),
    (
        "transfers",
        "kind, debit_account, credit_account, currency, amount, customer_id, order_id, lot_no, cause, happened_at",
        "order_id, cause",
    ),
    ("redemptions", "campaign_id, customer_id, order_id, discount, redeemed_at", "order_id, 'placing'"),
    ("outbox", "order_id, fact, sequence, type, body", "order_id, fact"),
)


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one transaction by table, in the order in which they are written."""

    events: int
    rows: tuple[tuple[str, list[Row]], ...]


def read_rows(database_url: str, batch_size: int) -> list[Batch]:
    """What a run wrote, in the order in which its facts took effect, cut into batches."""
    with psycopg.connect(database_url) as connection:
        facts = "SELECT order_id, fact FROM outbox WHERE order_id <> '' ORDER BY outbox_id"
        order = {fact: number for number, fact in enumerate(connection.execute(facts))}
        batches: list[dict[str, list[Row]]] = [defaultdict(list) for _ in range(-(-len(order) // batch_size))]
        for table, columns, fact in TABLES:
            query = f"SELECT {fact}, {columns} FROM {table} WHERE order_id IS NOT NULL"
            for row in connection.execute(query).fetchall():
                position = order.get((row[0], row[1]), len(order) - 1)  # what waits for ever comes last
                batches[position // batch_size][table].append(row[2:])
    sizes = [min(batch_size, len(order) - start) for start in range(0, len(order), batch_size)]
    return [
        Batch(size, tuple((_copy(table, columns), batch[table]) for table, columns, _ in TABLES if batch[table]))
        for size, batch in zip(sizes, batches, strict=True)
    ]


def _copy(table: str, columns: str) -> str:
    return f"COPY {table} ({columns.replace('::text', '')}) FROM STDIN"


def write_rows(database_url: str, batches: list[Batch]) -> float:
    """Write them into an empty ledger; returns the seconds from the first BEGIN to the last COMMIT."""
    connection = connect(database_url, application_name="limit")
    try:
        began = time.perf_counter()
        for batch in batches:
            with connection.transaction(), connection.cursor() as cursor:
                for statement, rows in batch.rows:
                    with cursor.copy(statement) as copy:
                        for row in rows:
                            copy.write_row(row)
        return time.perf_counter() - began
    finally:
        connection.close()
