"""Whatever the schema allows to be asked is answered or refused with a code of ours, never with an unexpected error.

Schemathesis draws queries and mutations for each field of the root types out of the schema in the repository, with values
that nobody would think of. What they meet is the real server and a ledger in which everything happened.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest
from graphql import GraphQLObjectType, build_schema
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from incentive_fleet.console.visitors import OPERATOR
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.settings import Settings
from tests.console_world import program_at
from tests.dead_letter_world import LetterDatabase, arrival, order
from tests.parts import fresh_database
from tests.small_world import play

pytestmark = pytest.mark.pages

EXAMPLES = 40  # of each field
SDL = (Path(__file__).parents[2] / "docs/graphql/schema.graphql").read_text(encoding="utf-8")
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9)
TIMES = st.sampled_from(
    ["2026-01-10T12:00:00Z", "1970-01-01t00:00:00+23:59", "2199-12-31T23:59:59.9999999Z", "2026-13-01", ""]
)
CODE = re.compile("[a-z]+(-[a-z]+)*")
UNEXPECTED = {
    "internal",
    "failed",
    "not-available",
    "deadline-passed",
}  # of what went wrong here, not of what was asked


@pytest.fixture(scope="module")
def client(postgres: Postgres, database_template: str) -> Iterator[httpx2.Client]:
    with fresh_database(postgres, database_template) as url:
        play(url)
        LetterDatabase(url).keep(*(arrival(order(n), name=f"copy-{n}") for n in range(1, 4)))
        with program_at(Settings(database_url=url, requests_per_s=10_000), OPERATOR) as client:
            yield client


def root_fields() -> Iterator[tuple[str, str]]:
    for root in ("Query", "Mutation"):
        type_ = build_schema(SDL).type_map[root]
        assert isinstance(type_, GraphQLObjectType)
        yield from ((root, field) for field in type_.fields)


@cache
def drawn_from_the_schema() -> Any:
    import schemathesis  # half a second, of those who run these tests alone
    from schemathesis.graphql import nodes

    for name in ("MinorUnits", "Long"):
        schemathesis.graphql.scalar(name, NUMBERS.map(nodes.Int))
    schemathesis.graphql.scalar("Time", TIMES.map(nodes.String))
    schemathesis.graphql.scalar("JSON", st.just(nodes.Null))
    return schemathesis.graphql.from_file(io.StringIO(SDL))


@pytest.mark.parametrize(("root", "field"), list(root_fields()), ids=str)
def test_whatever_is_asked_is_answered_or_refused(client: httpx2.Client, root: str, field: str) -> None:
    met: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(drawn_from_the_schema()[root][field].as_strategy())
    def ask(case: Any) -> None:
        answer = client.post("/graphql", json={"query": case.body})
        document = answer.json()
        codes = {error["extensions"]["code"] for error in document.get("errors", ())}
        assert answer.status_code in (200, 400), (case.body, answer.text)
        assert not codes & UNEXPECTED, (case.body, document)
        assert all(CODE.fullmatch(code) for code in codes), codes
        assert (answer.status_code == 200) == ("data" in document)
        met.update(codes or {"answered"})

    ask()
    assert set(met) - {"malformed", "too-costly", "too-deep"}, met
