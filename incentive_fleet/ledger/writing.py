"""Writing a decided batch: one statement a table, whatever the batch's size. The only code that inserts money.

Tables that have nothing to write are left out; none is written twice. Wallets, balances, redemption counts and unpublished
marks follow by the schema's triggers. Updates find their rows by `= ANY (ARRAY[key])`, which no planner turns into reading
the whole table (ADR 11).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from psycopg import Connection

from incentive_fleet.events.codec import Event
from incentive_fleet.incentives.posting import Posting
from incentive_fleet.incentives.wallet import Lot, Wallet
from incentive_fleet.ledger.columns import NULL, Table, packed_columns, unpacked
from incentive_fleet.ledger.working_set import Fact, WorkingSet

UNMEASURED = 0  # of an anomaly that no gross is compared with
BIGINT_MAX = 2**63 - 1  # what several entries of refunds claim together can be more
TEXTS, INTS, BIGINTS, TIMES = unpacked(), unpacked("int"), unpacked("bigint"), unpacked("timestamptz")
FACTS = Table.of(
    "facts",
    "order_id text, fact text, source text, event_id text, digest bytea, traceparent text, happened_at timestamptz,"
    " data json",
)
DECISIONS = Table.of("decisions", "order_id text, customer_id text, currency text, decision json")
WAITING = Table.of("waiting", "order_id text, fact text")
TRANSFERS = Table.of(
    "transfers",
    "kind text, debit_account text, credit_account text, currency text, amount bigint, customer_id text, order_id text,"
    " lot_no int, cause text, happened_at timestamptz",
)
LOTS = Table.of(
    "lots",
    "customer_id text, currency text, lot_no int, campaign_id text, amount bigint, remaining bigint, expired bigint,"
    " expires_at timestamptz, reissue_days int, root_lot_no int, reissued_from int, order_id text, cause text,"
    " created_at timestamptz",
)
REDEMPTIONS = Table.of(
    "redemptions", "campaign_id text, customer_id text, order_id text, discount bigint, redeemed_at timestamptz"
)
OUTBOX = Table.of("outbox", "order_id text, fact text, sequence int, type text, body text")
UPDATE_ORDERS = f"""
    UPDATE orders SET progress = k.progress::json
    FROM unnest({TEXTS}, {TEXTS}) AS k (order_id, progress) WHERE orders.order_id = ANY (ARRAY[k.order_id])
"""
UPDATE_LOTS = f"""
    UPDATE lots SET remaining = k.remaining, expired = k.expired
    FROM unnest({TEXTS}, {TEXTS}, {INTS}, {BIGINTS}, {BIGINTS})
        AS k (customer_id, currency, lot_no, remaining, expired)
    WHERE lots.customer_id = ANY (ARRAY[k.customer_id]) AND lots.currency = k.currency AND lots.lot_no = k.lot_no
"""
RELEASE_REDEMPTIONS = f"""
    UPDATE redemptions SET released_at = k.released_at
    FROM unnest({TEXTS}, {TEXTS}, {TEXTS}, {TIMES})
        AS k (campaign_id, customer_id, order_id, released_at)
    WHERE redemptions.campaign_id = ANY (ARRAY[k.campaign_id]) AND redemptions.customer_id = k.customer_id
      AND redemptions.order_id = k.order_id
"""
DELETE_WAITING = f"""
    DELETE FROM waiting USING unnest({TEXTS}, {TEXTS}) AS k (order_id, fact)
    WHERE waiting.order_id = ANY (ARRAY[k.order_id]) AND waiting.fact = k.fact
"""
# One that was resolved is open again when more is claimed than its resolution knew of; an unknown line has no measure, so
# there every further claim is more.
INSERT_ANOMALIES = f"""
    INSERT INTO anomalies AS known (order_id, reason, subject, claimed)
    SELECT order_id, reason, subject, nullif(claimed, {UNMEASURED})
    FROM unnest({TEXTS}, {TEXTS}, {TEXTS}, {BIGINTS}) AS k (order_id, reason, subject, claimed)
    ON CONFLICT (order_id, reason, subject) DO UPDATE
    SET claimed = excluded.claimed, resolved_at = NULL, resolved_by = NULL, resolution = NULL,
        noticed_at = CASE WHEN known.resolved_at IS NULL THEN known.noticed_at ELSE now() END
    WHERE excluded.claimed > known.claimed OR (excluded.claimed IS NULL AND known.resolved_at IS NOT NULL)
"""


Change = tuple[Table, Sequence[str]] | tuple[str, Sequence[tuple[object, ...]]]  # rows to insert, or a statement's


def write(connection: Connection[Any], changes: Iterable[Change], *, by_copy: bool = True) -> None:
    """Write inside the caller's transaction; nothing for a table is no statement. Without `by_copy` nothing is waited for
    when the caller is in pipeline mode, where COPY is not to be had."""
    for target, rows in changes:
        if not rows:
            continue
        if isinstance(target, str):
            connection.execute(target, packed_columns(rows, len(rows[0])))
        elif by_copy:
            with connection.cursor() as cursor, cursor.copy(target.copy) as copy:
                copy.write(target.copied(rows))  # type: ignore[arg-type]
        else:
            connection.execute(target.insert, target.inserted(rows))  # type: ignore[arg-type]


def batch_changes(working: WorkingSet) -> Iterator[Change]:
    """Everything that a batch decided."""
    writes = working.writes
    yield FACTS, [_fact_row(fact, event) for fact, event in writes.facts]
    yield (
        DECISIONS,
        [f"{order_id}\t{d.customer_id}\t{d.currency}\t{d.to_json()}" for order_id, d in writes.decisions.items()],
    )
    yield WAITING, [f"{order_id}\t{fact}" for order_id, fact in sorted(writes.waiting)]
    yield DELETE_WAITING, sorted(writes.waited)
    yield from wallet_changes(working.wallets.values())
    yield transfer_changes(writes.postings)
    yield REDEMPTIONS, ["\t".join(map(str, row)) for row in writes.redemptions]
    yield RELEASE_REDEMPTIONS, writes.released
    yield INSERT_ANOMALIES, [_anomaly_row(working, *anomaly) for anomaly in sorted(writes.anomalies)]
    yield (
        UPDATE_ORDERS,
        [(order_id, o.progress.to_json()) for order_id, o in working.orders.items() if o.changed and o.progress],
    )
    yield OUTBOX, [f"{o.order_id}\t{o.fact}\t{o.sequence}\t{o.type}\t{o.body}" for o in writes.outcomes]


def wallet_changes(wallets: Iterable[Wallet]) -> Iterator[Change]:
    """New lots, and what has changed of the others."""
    new: list[str] = []
    changed: list[tuple[object, ...]] = []
    for wallet in wallets:
        fresh = {lot.lot_no for lot in wallet.new_lots}
        new += [_lot_row(wallet, lot) for lot in wallet.new_lots]
        for lot_no in wallet.touched - fresh:
            lot = wallet.lots[lot_no]
            changed.append((wallet.customer_id, wallet.currency, lot_no, lot.remaining, lot.expired))
    yield LOTS, new
    yield UPDATE_LOTS, changed


def transfer_changes(postings: Iterable[Posting]) -> Change:
    """Transfers; balances follow by the trigger."""
    return TRANSFERS, [_transfer_row(posting) for posting in postings]


def _anomaly_row(working: WorkingSet, order_id: str, reason: str, subject: str) -> tuple[object, ...]:
    order = working.orders[order_id]
    claimed = UNMEASURED
    if reason == "exceeds-gross" and order.decision and order.progress:
        claimed = min(order.progress.claimed(order.decision.line_ids.index(subject)), BIGINT_MAX)
    return order_id, reason, subject, claimed


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
