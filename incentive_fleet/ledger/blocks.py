"""Blocks of transfers that were verified: the point up to which they reach, what may be sealed, and which have changed since.

A number is drawn before it is committed, so a smaller one may become visible after a larger one. The point therefore stays
behind every transaction that was writing when the largest number was read. This module decides nothing about soundness:
whoever seals has verified what lies before `upto`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection

BLOCK_TRANSFERS: Final = 100_000  # of one block: half a second of reading, and some 25 MB in the server while it does
TURNS: Final = 30  # each block is read again every so many runs
SETTLE_S: Final = 10.0  # a batch takes well under a second; who is not done by then keeps the point where it is
SETTLE_EVERY_S: Final = 0.05

POINT: Final = """
    SELECT block_no, last_id, last_outbox, digest, (SELECT sum(transfers) FROM transfer_blocks)::bigint
    FROM transfer_blocks ORDER BY block_no DESC LIMIT 1
"""
LARGEST: Final = "SELECT coalesce(max(transfer_id), 0), (SELECT coalesce(max(outbox_id), 0) FROM outbox) FROM transfers"
# A statement takes this lock before it draws a number, and its transaction keeps it to the end, past becoming visible.
WRITERS: Final = """
    SELECT virtualtransaction FROM pg_locks
    WHERE mode = 'RowExclusiveLock' AND relation IN ('public.transfers'::regclass, 'public.outbox'::regclass)
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
SEAL: Final = "SELECT seal_block(%s, %s, %s)"
OF_TURN: Final = """
    SELECT after_id, last_id, after_outbox, last_outbox, transfers FROM transfer_blocks
    WHERE block_no %% %s = %s ORDER BY block_no
"""
CHANGED: Final = """
    SELECT block_no, after_id + 1, last_id, transfers, held, to_json(sealed_at) #>> '{{}}' FROM (
        SELECT *, (SELECT count(*) FROM transfers AS t WHERE t.transfer_id > after_id AND t.transfer_id <= last_id) AS held
        FROM (
            SELECT *, lag(block_no, 1, 0) OVER blocks AS earlier_no, lag(last_id, 1, 0) OVER blocks AS earlier_last,
                   lag(last_outbox, 1, 0) OVER blocks AS earlier_outbox, lag(digest, 1, ''::bytea) OVER blocks AS earlier_digest
            FROM transfer_blocks WINDOW blocks AS (ORDER BY block_no)
        ) AS linked
        WHERE {which}
    ) AS block
    WHERE (block_no, after_id, after_outbox) IS DISTINCT FROM (earlier_no + 1, earlier_last, earlier_outbox)
       OR held <> transfers OR digest <> transfers_digest(earlier_digest, after_id, last_id)
       OR sums <> transfer_sums(after_id, last_id)
    ORDER BY block_no
"""


@dataclass(frozen=True, slots=True)
class Point:
    """How far the ledger was verified: the last block, and what lies in all of them. The digest stands for every transfer
    below: whoever keeps it elsewhere can tell later that nobody wrote the chain anew."""

    block: int
    transfer_id: int
    outbox_id: int
    transfers: int
    digest: str


NOTHING: Final = Point(0, 0, 0, 0, "")


@dataclass(frozen=True, slots=True)
class Range:
    """Transfers and outcomes of a stretch of numbers, each after the first and up to the second."""

    after: int
    last: int
    after_outbox: int
    last_outbox: int
    transfers: int


@dataclass(frozen=True, slots=True)
class ChangedBlock:
    """A block whose transfers, or whose place in the chain, are not what they were when it was sealed."""

    block: int
    first_transfer: int
    last_transfer: int
    transfers_then: int
    transfers_now: int
    sealed_at: str


def read_point(connection: Connection[Any]) -> Point:
    """The point as this connection sees it now; NOTHING before the first block."""
    row = connection.execute(POINT).fetchone()
    return Point(row[0], row[1], row[2], row[4], row[3].hex()) if row else NOTHING


def settle(connection: Connection[Any], wait_s: float = SETTLE_S) -> tuple[int, int] | None:
    """The largest numbers of a transfer and an outcome up to which nothing can appear any more; None when a transaction
    that was writing has not ended within `wait_s`. Blocks nobody. The connection must be outside a transaction, and what
    it begins afterwards sees everything up to these numbers."""
    row = connection.execute(LARGEST).fetchone()
    assert row is not None
    deadline = time.monotonic() + wait_s
    awaited = _writers(connection)
    while awaited:
        if time.monotonic() >= deadline:
            return None
        time.sleep(SETTLE_EVERY_S)
        awaited &= _writers(connection)
    return row[0], row[1]


def seal(connection: Connection[Any], upto: tuple[int, int], block_transfers: int = BLOCK_TRANSFERS) -> int:
    """Seal what lies between the point and `upto`, a transaction a block; how many blocks that were. Idempotent."""
    sealed = 0
    while True:
        row = connection.execute(SEAL, (*upto, block_transfers)).fetchone()
        if row is None or row[0] is None:
            return sealed
        sealed += 1


def blocks_of_turn(connection: Connection[Any], turn: int) -> list[Range]:
    """The stretches of every thirtieth block; each block has its turn once in thirty."""
    return [Range(*row) for row in connection.execute(OF_TURN, (TURNS, turn)).fetchall()]


def changed_blocks(connection: Connection[Any], turn: int | None = None) -> list[ChangedBlock]:
    """Which blocks have changed, the first one first: of those whose turn it is, or of all."""
    which = "true" if turn is None else f"block_no % {TURNS} = {turn}"
    return [ChangedBlock(*row) for row in connection.execute(CHANGED.format(which=which).encode()).fetchall()]


def _writers(connection: Connection[Any]) -> set[str]:
    return {str(row[0]) for row in connection.execute(WRITERS).fetchall()}
