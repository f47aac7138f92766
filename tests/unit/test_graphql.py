"""The API without a database: its schema, cursors, limits, and what is kept of queries."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLObjectType, get_introspection_query
from hypothesis import given
from hypothesis import strategies as st

from incentive_fleet.console.graphql import documents, limits
from incentive_fleet.console.graphql.cursors import FIRST_MAX, checked_first, cursor_of, page_of, place_of
from incentive_fleet.console.graphql.documents import Documents, InvalidQuery, prepared
from incentive_fleet.console.graphql.limits import COST_MAX, cost_of
from incentive_fleet.console.graphql.reading import ELEMENTS_MAX
from incentive_fleet.console.graphql.schema import EXPORT, executable, exported
from incentive_fleet.console.shields import BODY_MAX
from incentive_fleet.errors import Refused
from incentive_fleet.events.times import EARLIEST

ROOT = Path(__file__).parents[2]
SCHEMA = executable()
TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=50)
MOMENTS = st.integers(0, 7_000_000_000_000_000).map(lambda n: EARLIEST + timedelta(microseconds=n))
NUMBERS = st.integers(-(2**63), 2**63 - 1)


def test_the_schema_in_the_repository_is_the_one_that_answers() -> None:
    told = (ROOT / EXPORT).read_text(encoding="utf-8")
    assert told == exported(), "run `incentives schemas graphql > docs/graphql/schema.graphql`"


def test_every_question_says_what_it_answers() -> None:
    for name in ("Query", "Mutation"):
        type_ = SCHEMA.type_map[name]
        assert isinstance(type_, GraphQLObjectType)
        assert [field for field, definition in type_.fields.items() if not definition.description] == []


@given(TEXTS, NUMBERS, MOMENTS)
def test_a_cursor_leads_back_to_its_place(text: str, number: int, moment: datetime) -> None:
    place = text, number, moment
    assert place_of("listing", cursor_of("listing", place), (str, int, datetime)) == place


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: cursor_of("listing", (raw.hex(), 1))))
def test_what_is_no_cursor_of_the_listing_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="bad-cursor"):
        place_of("listing", text, (int,))


@pytest.mark.parametrize("place", [("a",), (True,), (2**63,), (1.0,), (None,), (1, 2)])
def test_a_cursor_with_another_kind_of_place_is_refused(place: tuple[Any, ...]) -> None:
    with pytest.raises(Refused, match="bad-cursor"):
        place_of("listing", cursor_of("listing", place), (int,))
    with pytest.raises(Refused, match="bad-cursor"):
        place_of("listing", cursor_of("other", (1,)), (int,))


def test_a_page_has_one_element_less_than_was_read() -> None:
    whole, cut = (page_of("n", list(range(n)), 3, None, lambda n: (n,)) for n in (3, 4))
    assert [page.page_info.has_next_page for page in (whole, cut)] == [False, True]
    assert [edge.node for edge in cut.edges] == [0, 1, 2]
    nothing: list[int] = []
    empty = page_of("n", nothing, 3, cursor_of("n", (9,)), lambda n: (n,))
    assert (empty.page_info.end_cursor, empty.page_info.has_previous_page) == (None, True)
    for first in (0, FIRST_MAX + 1):
        with pytest.raises(Refused, match=str(first)):
            checked_first(first)


def cost(query: str, **variables: Any) -> int:
    one = prepared(SCHEMA, query)
    return cost_of(SCHEMA, one.document, one.operation(None), variables)


def test_the_cost_is_the_number_of_fields_that_the_answer_could_have() -> None:
    assert cost('{ wallet(customerId: "a", currency: "EUR") { balance pending } }') == 3
    statement = 'query ($n: Int!) { wallet(customerId: "a", currency: "EUR") { transfers(first: $n) { edges { node { kind } } } } }'
    assert [cost(statement, n=n) for n in (1, 100)] == [2 + 1 + 2 * n for n in (1, 100)]
    assert cost(statement.replace("$n: Int!", "$n: Int = 7"), n="nonsense") == cost(statement, n=FIRST_MAX)
    inlined = statement.replace("transfers", "... on Wallet { ...more } } } fragment more on Wallet { transfers")[:-2]
    assert cost(inlined, n=9) == cost(statement, n=9)
    listed = '{ wallet(customerId: "a", currency: "EUR") { lots { lotNo amount } } }'
    assert cost(listed) == 1 + 1 + 2 * limits.LISTED


def test_a_page_of_any_size_is_too_costly_before_it_is_read() -> None:
    for first in (10**9, 2**31 - 1):
        with pytest.raises(Refused, match="too-costly"):
            cost(f"{{ anomalies(first: {first}) {{ edges {{ cursor }} }} }}")


def test_a_page_costs_the_same_however_its_size_is_given() -> None:
    page = "deadLetters(first: $n) { edges { cursor } }"
    told = "{ " + page.replace("$n", "200") + " }"
    asked = "query ($n: Int!) { " + page + " }"
    without = "query ($n: Int! = 200) { " + page + " }"
    assert cost(told) == cost(asked, n=200) == cost(asked, n=200.0) == cost(without) == cost(without, n=1) + 199
    assert cost("query ($n: Int) { campaigns(first: $n) { edges { cursor } } }") == cost(
        "{ campaigns { edges { cursor } } }"
    )


def test_the_schema_may_be_asked_for_and_not_often_at_once() -> None:
    assert cost(get_introspection_query()) <= COST_MAX
    with pytest.raises(Refused, match="too-costly"):
        cost("{ " + " ".join(f"s{n}: __schema {{ queryType {{ name }} }}" for n in range(3)) + " }")


def test_depth_is_bounded_through_fragments() -> None:
    type_, fields = "Anomaly", "reason"
    for _ in range(8):
        fields = f"order {{ anomalies {{ {fields} }} }}"
    with pytest.raises(Refused, match="too-deep"):
        cost(f"{{ anomalies(first: 1) {{ edges {{ node {{ ...one }} }} }} }} fragment one on {type_} {{ {fields} }}")


def test_as_many_queries_are_kept_as_are_bounded_and_the_latest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "KEPT_MAX", 3)
    kept = Documents(SCHEMA)
    queries = [f"query Q{n} {{ __typename }}" for n in range(5)]
    first = kept.ready(queries[0], None)
    for query in queries[1:3]:
        kept.ready(query, None)
    assert kept.ready(queries[0], None) is first
    for query in queries[3:]:
        kept.ready(query, None)
    named = [{"persistedQuery": {"version": 1, "sha256Hash": sha256(query.encode()).hexdigest()}} for query in queries]
    assert kept.ready(None, named[0]) is first
    for gone in (1, 2):
        with pytest.raises(Refused, match="PersistedQueryNotFound"):
            kept.ready(None, named[gone])
    monkeypatch.setattr(documents, "CHARACTERS_KEPT_MAX", 30)
    kept.ready("query Last { __typename }", None)
    with pytest.raises(Refused, match="PersistedQueryNotFound"):
        kept.ready(None, named[0])


def test_a_query_that_is_none_is_not_kept() -> None:
    kept = Documents(SCHEMA)
    for _ in range(2):
        with pytest.raises(InvalidQuery):
            kept.ready("{ nothing }", None)
    assert kept._kept == {}


def test_the_page_tells_the_limits_that_hold() -> None:
    page = (ROOT / "docs/graphql.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| .* \| ([\d,]+) \| `([a-z-]+)` \|$", page, re.MULTILINE))
    assert {code: int(most.replace(",", "")) for most, code in told.items()} == {
        "too-costly": limits.COST_MAX,
        "too-deep": limits.DEPTH_MAX,
        "too-many-fields": limits.FIELDS_MAX,
        "too-many-aliases": limits.ALIASES_MAX,
        "query-too-long": limits.QUERY_CHARACTERS_MAX,
        "too-large": BODY_MAX,
        "answer-too-large": ELEMENTS_MAX,
    }
