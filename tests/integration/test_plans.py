"""Every look-up of a batch goes by index with its whole key, whatever the planner knew when it planned.

Plans are cached for a session. One that was right for an empty ledger and reads a table in full would be a catastrophe an
hour later, and no statistics come to its rescue in time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from incentive_fleet.ledger import locking, writing
from incentive_fleet.ledger.session import Session
from tests.domain import delivered, placed, refunded
from tests.small_world import TERMS, apply, give, load, play

GROWING = ("wallets", "balances", "lots", "orders", "facts", "decisions", "waiting", "redemptions")
LOOK_UPS = {
    name: statement
    for module in (locking, writing)
    for name, statement in vars(module).items()
    if isinstance(statement, str)
    and name.split("_")[0] in {"READ", "LOCK", "UPDATE", "DELETE", "RELEASE"}
    and "%s" in statement
}


@pytest.fixture(params=["empty", "a row each"])
def session(request: pytest.FixtureRequest, database_url: str) -> Iterator[Session]:
    """A session on a ledger of which nothing is known, or known that its tables hold next to nothing."""
    if request.param == "a row each":
        play(database_url)
        leave_a_row_each(database_url)
    with closing(Session(database_url)) as session:
        yield session


def leave_a_row_each(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for table in GROWING:
            connection.execute(f"DELETE FROM {table} WHERE ctid <> (SELECT min(ctid) FROM {table})".encode())
            connection.execute(f"VACUUM (FULL, ANALYZE) {table}".encode())


@pytest.mark.parametrize("name", sorted(LOOK_UPS))
def test_a_batch_looks_up_by_index(session: Session, name: str) -> None:
    connection = session.connection
    connection.prepare_threshold = None
    parts = LOOK_UPS[name].split("%s")
    numbered = "".join(f"{part}${number}" for number, part in enumerate(parts[:-1], start=1)) + parts[-1]
    connection.execute(f"PREPARE look_up AS {numbered}")
    nulls = ", ".join(["NULL"] * (len(parts) - 1))
    plan = [row[0] for row in connection.execute(f"EXPLAIN (COSTS OFF) EXECUTE look_up ({nulls})").fetchall()]
    assert not any("Seq Scan" in line for line in plan), plan
    for line, following in zip(plan, [*plan[1:], ""], strict=True):
        if "Index Scan" in line or "Index Only Scan" in line:
            assert "Index Cond" in following, plan  # without one it reads the index from end to end
    assert not any("Hash Join" in line or "Merge Join" in line or "Materialize" in line for line in plan), plan


def test_what_a_batch_fetches_does_not_grow_with_the_ledger(database_url: str) -> None:
    """Also where no plan can be asked for: in the triggers."""
    with closing(Session(database_url)) as session:
        load(session, *TERMS)
        give(session, "g", 10**9)
        apply(session, placed("first", coupons=["K"], credit=7), refunded(order="first"))
        leave_a_row_each(database_url)
        fetched = [0]
        for start in range(0, 400, 40):
            numbers = range(start, start + 40)
            for number in numbers:
                give(session, f"g{number}", 50, customer_id=f"c{number}")
            apply(session, *(placed(f"o{n}", coupons=["K"], credit=7, customer=f"c{n}") for n in numbers))
            apply(session, *(delivered(f"o{n}") for n in numbers))
            apply(session, *(refunded(order=f"o{n}") for n in numbers))
            session.connection.execute("SELECT pg_stat_force_next_flush()")
            session.connection.execute("SELECT 1")
            fetched.append(_rows_fetched(database_url))
    added = [after - before for before, after in itertools.pairwise(fetched)]
    assert added[-1] <= 1.5 * added[1], f"rows fetched by each 40 orders: {added}"


def _rows_fetched(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables WHERE relname = ANY(%s)",
            (list(GROWING),),
        ).fetchone()
    assert row is not None
    return int(row[0])
