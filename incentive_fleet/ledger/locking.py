"""Taking a batch's locks and reading what they guard, in two round trips whatever the batch's size.

Locks have one order (docs/architecture.md): the terms shared, then orders sorted, then wallets sorted, then limited campaigns
sorted. Every read that decides is a statement of its own after the lock it needs, because a statement that waits for a lock
still sees the rows as they were when it began; only the row that it locked comes back in its newest version (READ
COMMITTED), so a wallet is locked and read in one. Rows that this transaction has just inserted are its own already: locking
them again would only write more WAL, so the lock skips them by their xmin.

Keys come as arrays. Sub-selects with OFFSET 0 or a lock are looked up once a key whatever the planner thinks (ADR 11).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from psycopg import Connection, Cursor

from incentive_fleet.events.codec import Event, grant_digest, stored_event
from incentive_fleet.events.facts import FINAL_BASKET, GRANT, NO_ORDER, PLACING
from incentive_fleet.events.models import CreditGrantRequested
from incentive_fleet.incentives.campaigns import CampaignSet, Usage
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.running_totals import Progress, RunningTotals
from incentive_fleet.incentives.wallet import Lot, Wallet
from incentive_fleet.ledger.columns import packed, packed_rows, unpacked
from incentive_fleet.ledger.conditions import Conditions, received, send
from incentive_fleet.ledger.pooler import take_settings
from incentive_fleet.ledger.preconditions import KEEPS_BOOKS, refuse_to_write
from incentive_fleet.ledger.terms import TERMS_LOCK, Terms, read_terms
from incentive_fleet.ledger.working_set import FactKey, Order, Unit, WalletKey

Row = tuple[Any, ...]
TEXTS, INTS = unpacked(), unpacked("int")

BEGIN_BATCH = ("BEGIN",)
LOCK_TERMS = "SELECT pg_advisory_xact_lock_shared(%s)"
READ_REVISION = "SELECT revision FROM campaign_revision"
READ_REVISION_TO_WRITE = f"SELECT revision, {KEEPS_BOOKS} FROM campaign_revision"
CREATE_ORDERS = f"INSERT INTO orders (order_id) SELECT unnest({TEXTS}) ON CONFLICT (order_id) DO NOTHING"
LOCK_ORDERS = f"""
    SELECT order_id FROM orders WHERE order_id = ANY({TEXTS}) AND xmin <> pg_current_xact_id()::xid
    ORDER BY order_id FOR NO KEY UPDATE
"""
READ_FACTS = f"""
    SELECT f.* FROM unnest({TEXTS}, {TEXTS}) AS k (order_id, fact), LATERAL (
        SELECT order_id, fact, source, event_id, digest FROM facts
        WHERE order_id = k.order_id AND fact = k.fact OFFSET 0
    ) AS f
    UNION ALL
    SELECT f.* FROM unnest({TEXTS}, {TEXTS}) AS k (event_id, source), LATERAL (
        SELECT order_id, fact, source, event_id, digest FROM facts
        WHERE event_id = k.event_id AND source = k.source OFFSET 0
    ) AS f
"""
READ_ORDERS = f"""
    SELECT d.order_id, d.customer_id, d.currency, d.decision, o.totals, f.decision
    FROM decisions AS d CROSS JOIN LATERAL (SELECT totals FROM orders WHERE order_id = d.order_id OFFSET 0) AS o
        LEFT JOIN LATERAL (SELECT decision FROM final_baskets WHERE order_id = d.order_id OFFSET 0) AS f ON true
    WHERE d.order_id = ANY({TEXTS})
"""
READ_GRANTS = f"""
    SELECT key, customer_id, currency, amount, campaign_id, expires_at FROM grants WHERE key = ANY({TEXTS})
"""
READ_WAITING = f"""
    SELECT f.* FROM waiting AS w, LATERAL (
        SELECT order_id, fact, source, event_id, digest, traceparent, data::text FROM facts
        WHERE order_id = w.order_id AND fact = w.fact OFFSET 0
    ) AS f WHERE w.order_id = ANY({TEXTS})
"""
CREATE_WALLETS = f"""
    INSERT INTO wallets (customer_id, currency) SELECT * FROM unnest({TEXTS}, {TEXTS})
    ON CONFLICT (customer_id, currency) DO NOTHING RETURNING customer_id, currency, balance, debt, last_lot_no
"""
_LOCK_WALLETS = f"""
    SELECT w.* FROM unnest({TEXTS}, {TEXTS}) AS k (customer_id, currency), LATERAL (
        SELECT customer_id, currency, balance, debt, last_lot_no FROM wallets
        WHERE customer_id = k.customer_id AND currency = k.currency AND xmin <> pg_current_xact_id()::xid
        FOR NO KEY UPDATE {{held}}
    ) AS w
"""
LOCK_WALLETS = _LOCK_WALLETS.format(held="")
LOCK_FREE_WALLETS = _LOCK_WALLETS.format(held="SKIP LOCKED")
LOCK_CAMPAIGNS = f"""
    SELECT campaign_id FROM campaigns WHERE campaign_id = ANY({TEXTS}) ORDER BY campaign_id FOR NO KEY UPDATE
"""
LOT_COLUMNS = ", ".join(("customer_id", "currency", *(field.name for field in fields(Lot))))
READ_LIVE_LOTS = f"""
    SELECT l.* FROM unnest({TEXTS}, {TEXTS}) AS k (customer_id, currency), LATERAL (
        SELECT {LOT_COLUMNS} FROM lots WHERE customer_id = k.customer_id AND currency = k.currency AND live OFFSET 0
    ) AS l
"""
READ_LOTS = f"""
    SELECT l.* FROM unnest({TEXTS}, {TEXTS}, {INTS}) AS k (customer_id, currency, lot_no), LATERAL (
        SELECT {LOT_COLUMNS} FROM lots
        WHERE customer_id = k.customer_id AND currency = k.currency AND lot_no = k.lot_no OFFSET 0
    ) AS l
"""
READ_REDEMPTIONS = f"""
    SELECT k.campaign_id, k.customer_id,
        (SELECT count(*) FROM redemptions r
         WHERE r.campaign_id = k.campaign_id AND r.customer_id = k.customer_id AND r.released_at IS NULL)
    FROM unnest({TEXTS}, {TEXTS}) AS k (campaign_id, customer_id)
"""
READ_SPENT = f"""
    SELECT c.campaign_id,
        (SELECT coalesce(sum(b.balance), 0) FROM balances b
         WHERE b.account = 'campaign:' || c.campaign_id AND b.currency = c.currency),
        (SELECT coalesce(sum(r.live), 0) FROM redemption_counts r WHERE r.campaign_id = c.campaign_id)
    FROM campaigns c WHERE c.campaign_id = ANY({TEXTS})
"""


@dataclass(slots=True)
class Identities:
    """The stored digests that the batch's identities may meet."""

    facts: dict[FactKey, bytes]
    events: dict[tuple[str, str], bytes]  # (source, event_id)


@dataclass(frozen=True, slots=True)
class WalletNeeds:
    """Which wallets a batch touches, of which it needs all live lots, and which lots it needs whether live or not."""

    wallets: Sequence[WalletKey]
    live: Sequence[WalletKey]
    lots: Sequence[tuple[str, str, int]]
    of_units: Mapping[Unit, WalletKey] = field(default_factory=dict)


def lock_orders(
    connection: Connection[Any],
    terms: Terms,
    events: Sequence[Event],
    begin: Sequence[str] = BEGIN_BATCH,
) -> tuple[Terms, Identities, dict[str, Order]]:
    """Begin the transaction, lock the batch's orders and read facts, decisions and what waits."""
    of_orders = [event for event in events if event.order_id != NO_ORDER]
    order_ids = sorted({event.order_id for event in of_orders})
    waited_for = sorted({event.order_id for event in of_orders if event.fact in (PLACING, FINAL_BASKET)})
    following = sorted({event.order_id for event in of_orders if event.fact != PLACING})
    of_none = [event.data for event in events if event.order_id == NO_ORDER]
    grant_keys = sorted({data.grant_key for data in of_none if isinstance(data, CreditGrantRequested)})
    named = packed(order_ids)
    with connection.pipeline():
        for statement in begin:
            connection.execute(statement.encode())
        take_settings(connection)
        connection.execute(LOCK_TERMS, (TERMS_LOCK,))
        revision = connection.execute(READ_REVISION_TO_WRITE)
        if order_ids:
            connection.execute(CREATE_ORDERS, (named,))
            connection.execute(LOCK_ORDERS, (named,))
        facts = connection.execute(READ_FACTS, packed_rows([(e.order_id, e.fact, e.id, e.source) for e in events]))
        stored = connection.execute(READ_ORDERS, (packed(following),)) if following else None
        waiting = connection.execute(READ_WAITING, (packed(waited_for),)) if waited_for else None
        grants = connection.execute(READ_GRANTS, (packed(grant_keys),)) if grant_keys else None
    identities = _identities(facts.fetchall())
    for grant in _rows(grants):
        identities.facts[(NO_ORDER, f"{GRANT}{grant[0]}")] = grant_digest(*grant)
    terms = _current(connection, terms, revision.fetchone())
    return terms, identities, _orders(order_ids, _rows(stored), _rows(waiting))


def lock_terms(connection: Connection[Any], terms: Terms) -> Terms:
    """Hold the terms for this transaction, and read them again when they have changed."""
    with connection.pipeline():
        connection.execute(LOCK_TERMS, (TERMS_LOCK,))
        revision = connection.execute(READ_REVISION_TO_WRITE)
    return _current(connection, terms, revision.fetchone())


def _current(connection: Connection[Any], terms: Terms, found: Row | None) -> Terms:
    assert found is not None
    revision, keeps_books = found
    if not keeps_books:
        refuse_to_write(connection)
    return terms if terms.revision == revision else read_terms(connection, revision)


def lock_wallets(
    connection: Connection[Any],
    needs: WalletNeeds,
    asked: Conditions,
    *,
    skip_locked: bool = False,
) -> tuple[dict[WalletKey, Wallet], Usage]:
    """Lock wallets, limited campaigns and codes, in this order, and read what decisions need of them.

    With `skip_locked` the wallets that another transaction holds are left out.
    """
    if not needs.wallets:
        return {}, Usage()  # whatever came waits for its placing: nothing is decided
    keys = packed_rows(needs.wallets)
    with connection.pipeline():
        created = connection.execute(CREATE_WALLETS, keys)
        locked = connection.execute(LOCK_FREE_WALLETS if skip_locked else LOCK_WALLETS, keys)
        if asked.limited:
            connection.execute(LOCK_CAMPAIGNS, (packed(sorted(asked.limited)),))
        live_lots = connection.execute(READ_LIVE_LOTS, packed_rows(needs.live)) if needs.live else None
        lots = connection.execute(READ_LOTS, packed_rows(needs.lots)) if needs.lots else None
        counts, conditions = send_usage(connection, asked), send(connection, asked)
    usage = read_usage(counts)
    received(conditions, usage)
    wallets: dict[WalletKey, Wallet] = {row[:2]: Wallet(*row) for row in (*created.fetchall(), *locked.fetchall())}
    add_lots(wallets, [*_rows(live_lots), *_rows(lots)])
    return wallets, usage


def send_usage(connection: Connection[Any], asked: Conditions) -> tuple[Cursor[Any] | None, Cursor[Any] | None]:
    """Send for redemptions and spending, in the caller's pipeline; `read_usage` takes the answers."""
    counted = packed_rows(sorted(asked.counted)) if asked.counted else None
    redemptions = connection.execute(READ_REDEMPTIONS, counted) if counted else None
    spent = connection.execute(READ_SPENT, (packed(sorted(asked.limited)),)) if asked.limited else None
    return redemptions, spent


def read_usage(cursors: tuple[Cursor[Any] | None, Cursor[Any] | None]) -> Usage:
    """Redemptions of limited campaigns, and what they spent."""
    redemptions, spent = cursors
    usage = Usage()
    for campaign_id, customer_id, count in _rows(redemptions):
        usage.live_by_customer[(campaign_id, customer_id)] = count
    for campaign_id, net_spend, live in _rows(spent):
        usage.spent[campaign_id], usage.live[campaign_id] = int(net_spend), int(live)  # sums of slots may leave bigint
    return usage


def add_lots(wallets: dict[WalletKey, Wallet], lot_rows: list[Row]) -> None:
    """Put the rows of READ_LIVE_LOTS and READ_LOTS into their wallets' working copies; those of other wallets are left out."""
    for customer_id, currency, lot_no, *rest in lot_rows:
        if wallet := wallets.get((customer_id, currency)):
            wallet.lots[lot_no] = Lot(lot_no, *rest)


def limited_among(campaigns: CampaignSet, named: Iterable[str]) -> set[str]:
    """Those of the named campaigns whose total or budget asks for their lock."""
    return {name for name in named if campaigns.by_id[name].is_limited}


def _identities(rows: list[Row]) -> Identities:
    return Identities(
        facts={(order_id, fact): digest for order_id, fact, _, _, digest in rows},
        events={(source, event_id): digest for _, _, source, event_id, digest in rows},
    )


def _orders(order_ids: list[str], stored: list[Row], waiting: list[Row]) -> dict[str, Order]:
    orders = {order_id: Order() for order_id in order_ids}
    for order_id, customer_id, currency, decision, totals, final in stored:
        placed = Decision.from_json(customer_id, currency, decision)
        basket = Decision.from_json(customer_id, currency, final) if final else None
        lines = len((basket or placed).line_ids)
        known = RunningTotals.from_json(totals, lines) if totals else None
        orders[order_id].progress = Progress(placed, known, basket)
    for order_id, fact, source, event_id, digest, traceparent, data in waiting:
        event = stored_event(fact, source, event_id, digest, traceparent, data.encode())
        orders[order_id].waiting.append(event)
    return orders


def _rows(cursor: Cursor[Any] | None) -> list[Row]:
    """None: nothing was asked, because no event needs the answer."""
    return cursor.fetchall() if cursor else []
