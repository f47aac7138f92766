"""The job of one event in one transaction, in as few round trips as one can: what every peer's task calls.

The same rules (they are imported), the same tables, locks and rows as the fleet's. Where the fleet's statements serve a
batch, these are written for a single row: no COPY, no arrays, nothing asked that this event cannot need. Postgres is
talked to in pipeline mode, twice an event: everything that is locked and read goes out together, then everything that is
written, COMMIT at its end. A third exchange comes only where a campaign has a limit, where facts waited for the placing,
or where a row that is nearly always there (the order of a delivery, the wallet of a customer) has to be made first.

In pipeline mode each statement costs psycopg some 60 microseconds whatever it does, so reads are joined into one
statement, and writes into statements of several data-modifying common table expressions.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from benchmarks.peers import statements as sql
from incentive_fleet.events.codec import Event, decode, stored_event
from incentive_fleet.events.models import OrderPlaced
from incentive_fleet.incentives.campaigns import CampaignSet, Usage
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.placing import normal_codes
from incentive_fleet.incentives.running_totals import Progress, RunningTotals
from incentive_fleet.incentives.wallet import Lot, Wallet
from incentive_fleet.ledger.batch import Identity, Known
from incentive_fleet.ledger.connection import mapped_errors, retry_contention
from incentive_fleet.ledger.effect import take_effect
from incentive_fleet.ledger.rows import LotRow
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.terms import read_terms
from incentive_fleet.ledger.working_set import Order, WorkingSet

Row = tuple[Any, ...]

PARAMETERS_MAX = 50  # psycopg keeps the parsed form of statements with no more

_of_thread = threading.local()


def apply(body: bytes) -> Event:
    """Apply one event, exactly once in effect; returns it once it is committed. Each thread has a connection."""
    session: Session | None = getattr(_of_thread, "session", None)
    if session is None:
        session = _of_thread.session = Session(os.environ["INCENTIVES_DATABASE_URL"], application_name="peer")
    event = decode(body)
    with mapped_errors():
        retry_contention()(_attempt, session, event)
    return event


def _attempt(session: Session, event: Event) -> None:
    connection = session.connection
    try:
        stored, working = _lock_and_read(session, connection, event)
        if stored.identity(event) is not Identity.NEW:
            connection.execute("COMMIT")
            return
        _read_limits(connection, working, session.terms.campaigns, event)
        take_effect(working, session.terms.campaigns, event)
        _write(connection, working)
    except BaseException:
        if not connection.closed:
            connection.rollback()
        raise


def _lock_and_read(session: Session, connection: psycopg.Connection[Any], event: Event) -> tuple[Known, WorkingSet]:
    if isinstance(event.data, OrderPlaced):
        key, row, lots = _lock_for_placing(connection, event, (event.data.customer_id, event.data.currency))
        order = Order()
        if row[3]:
            order.waiting = [
                _waiting(one) for one in connection.execute(sql.READ_WAITING, (event.order_id,)).fetchall()
            ]
    else:
        row, lots = _lock_for_undoing(connection, event)
        key, order = (row[3], row[4]), Order()
        if row[5] is not None:
            placed = Decision.from_json(*key, row[5])
            lines = len(placed.line_ids)
            order.progress = Progress(
                placed, RunningTotals.from_json(row[6], lines) if row[6] else RunningTotals(lines)
            )
    if row[0] != session.terms.revision:
        session.terms = read_terms(connection, row[0])
    stored = Known(by_event={}, by_fact={})
    if row[1] is not None:
        stored.by_fact[(event.order_id, event.fact)] = row[1]
    if row[2] is not None:
        stored.by_event[(event.source, event.id)] = row[2]
    working = WorkingSet()
    working.orders[event.order_id] = order
    if key[0] is not None:
        balance, debt, last_lot_no = row[-3:]
        working.wallets[key] = Wallet(*key, balance or 0, debt or 0, last_lot_no or 0)
        working.wallets[key].lots = {lot[0]: Lot(*lot) for lot in lots}
    return stored, working


def _lock_for_placing(
    connection: psycopg.Connection[Any], event: Event, key: tuple[str, str]
) -> tuple[tuple[str, str], Row, list[Row]]:
    order_id = event.order_id
    with connection.pipeline():
        connection.execute("BEGIN")
        created = connection.execute(sql.CREATE_ORDER, (order_id,))
        locked = connection.execute(sql.LOCK_WALLET, key)
        found = connection.execute(sql.READ_FOR_PLACING, (*_identities(event), order_id, *key))
        lots = connection.execute(sql.READ_LIVE_LOTS, key)
    if not (created.rowcount and locked.rowcount):  # the order was there already, or the wallet was not: once more
        with connection.pipeline():
            connection.execute("ROLLBACK")
            connection.execute("BEGIN")
            connection.execute(sql.CREATE_ORDER, (order_id,))
            connection.execute(sql.LOCK_ORDER, (order_id,))
            connection.execute(sql.CREATE_WALLET, key)
            connection.execute(sql.LOCK_WALLET, key)
            found = connection.execute(sql.READ_FOR_PLACING, (*_identities(event), order_id, *key))
            lots = connection.execute(sql.READ_LIVE_LOTS, key)
    return key, _only(found), lots.fetchall()


def _lock_for_undoing(connection: psycopg.Connection[Any], event: Event) -> tuple[Row, list[Row]]:
    order_id = event.order_id
    with connection.pipeline():
        connection.execute("BEGIN")
        locked = connection.execute(sql.LOCK_ORDER, (order_id,))
        connection.execute(sql.LOCK_WALLET_OF_ORDER, (order_id,))
        found = connection.execute(sql.READ_FOR_UNDOING, (*_identities(event), order_id))
        lots = connection.execute(sql.READ_LOTS_OF_ORDER, (order_id,))
    if not locked.rowcount:  # it came before its placing
        with connection.pipeline():
            connection.execute(sql.CREATE_ORDER, (order_id,))
            connection.execute(sql.LOCK_ORDER, (order_id,))
            connection.execute(sql.LOCK_WALLET_OF_ORDER, (order_id,))
            found = connection.execute(sql.READ_FOR_UNDOING, (*_identities(event), order_id))
            lots = connection.execute(sql.READ_LOTS_OF_ORDER, (order_id,))
    return _only(found), lots.fetchall()


def _identities(event: Event) -> tuple[str, str, str, str]:
    return event.order_id, event.fact, event.id, event.source


def _only(cursor: psycopg.Cursor[Any]) -> Row:
    row = cursor.fetchone()
    assert row is not None
    return tuple(row)


def _waiting(row: Row) -> Event:
    fact, source, event_id, digest, traceparent, data = row
    return stored_event(fact, source, event_id, digest, traceparent, data.encode())


def _read_limits(
    connection: psycopg.Connection[Any], working: WorkingSet, campaigns: CampaignSet, event: Event
) -> None:
    """The campaigns in play that have a limit: locked, then read. Most shops' orders meet none."""
    data, order = event.data, working.orders[event.order_id]
    if isinstance(data, OrderPlaced):
        coupons = [campaigns.by_code[code] for code in normal_codes(data.coupons) if code in campaigns.by_code]
        named = [*coupons, *campaigns.earning.get(data.currency, ()), *campaigns.making_good.get(data.currency, ())]
        customer_id = data.customer_id
    elif order.progress is not None:
        coupons, named = [], [*campaigns.making_good.get(order.progress.placed.currency, ())]
        customer_id = order.progress.placed.customer_id
    else:
        return
    limited = sorted({campaign.id for campaign in named if campaign.is_limited})
    counted = [campaign.id for campaign in coupons if campaign.per_customer is not None]
    if not limited and not counted:
        return
    with connection.pipeline():
        connection.execute(sql.LOCK_CAMPAIGNS, (limited,))
        redemptions = connection.execute(sql.READ_REDEMPTIONS, (counted, customer_id))
        spent = connection.execute(sql.READ_SPENT, (limited,))
    working.usage = Usage()
    for campaign_id, count in redemptions.fetchall():
        working.usage.live_by_customer[(campaign_id, customer_id)] = count
    for campaign_id, net_spend, live in spent.fetchall():
        working.usage.spent[campaign_id], working.usage.live[campaign_id] = net_spend, live


Part = tuple[str, Sequence[Any]]


def _write(connection: psycopg.Connection[Any], working: WorkingSet) -> None:
    parts = [part for part in _parts(working) if part[1]]
    with connection.pipeline():
        while parts:
            together = [parts.pop()]
            room = PARAMETERS_MAX - len(together[0][1])
            for part in parts[:]:
                if len(part[1]) <= room:
                    room -= len(part[1])
                    together.append(part)
                    parts.remove(part)
            _execute_together(connection, together)
        connection.execute("COMMIT")


def _execute_together(connection: psycopg.Connection[Any], parts: list[Part]) -> None:
    """One statement for all; triggers run as for statements of their own. Texts are few, so each is prepared once."""
    if len(parts) == 1:
        connection.execute(*parts[0])
        return
    named = ", ".join(f"w{number} AS ({statement})" for number, (statement, _) in enumerate(parts))
    connection.execute(f"WITH {named} SELECT 1", [value for _, values in parts for value in values])


def _parts(working: WorkingSet) -> Iterator[Part]:
    writes = working.writes
    for wallet in working.wallets.values():
        yield from _lot_parts(wallet)
    yield _insert(sql.INSERT_FACT, writes.facts)
    yield _insert(
        sql.INSERT_DECISION,
        [(order_id, d.customer_id, d.currency, d.to_json()) for order_id, d in writes.decisions.items()],
    )
    yield _insert(sql.INSERT_WAITING, sorted(writes.waiting))
    yield from ((sql.DELETE_WAITING, key) for key in sorted(writes.waited))
    yield _insert(sql.INSERT_REDEMPTIONS, writes.redemptions)
    for campaign_id, customer_id, order_id, released_at in writes.released:
        yield sql.RELEASE_REDEMPTION, (released_at, campaign_id, customer_id, order_id)
    yield from ((sql.INSERT_ANOMALY, anomaly) for anomaly in sorted(writes.anomalies))
    for order_id, order in working.orders.items():
        if order.changed and order.progress:
            yield sql.UPDATE_ORDER, (order.progress.totals.to_json(), order_id)
    yield _insert(sql.INSERT_OUTCOMES, writes.outcomes)
    yield _insert(sql.INSERT_TRANSFERS, writes.postings)


def _lot_parts(wallet: Wallet) -> Iterator[Part]:
    key = (wallet.customer_id, wallet.currency)
    yield _insert(sql.INSERT_LOTS, [LotRow.of(wallet, lot) for lot in wallet.new_lots])
    for lot_no in sorted(wallet.touched - {lot.lot_no for lot in wallet.new_lots}):
        lot = wallet.lots[lot_no]
        yield sql.UPDATE_LOT, (lot.remaining, lot.expired, *key, lot_no)


def _insert(head: str, rows: Sequence[Row]) -> Part:
    """All rows of a table in one statement."""
    if not rows:
        return head, ()
    places = "(" + ", ".join(["%s"] * len(rows[0])) + ")"
    return f"{head} VALUES {', '.join([places] * len(rows))}", [value for row in rows for value in row]
