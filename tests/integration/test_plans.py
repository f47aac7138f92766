"""Every look-up of a batch goes by index with its whole key, planned for tables that are empty and never analyzed.

Plans are cached for a session. One that was right for an empty ledger and reads a table in full would be a catastrophe an
hour later, and no statistics come to its rescue in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from incentive_fleet.ledger import locking, writing
from incentive_fleet.ledger.session import Session

LOOK_UPS = {
    name: statement
    for module in (locking, writing)
    for name, statement in vars(module).items()
    if isinstance(statement, str)
    and name.split("_")[0] in {"READ", "LOCK", "UPDATE", "DELETE", "RELEASE"}
    and "%s" in statement
}


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    with closing(Session(database_url)) as session:
        yield session


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
