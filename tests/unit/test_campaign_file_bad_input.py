"""Bad input of each key of a campaign file (rules 9): refused by its kind, with campaign, key and value, and nothing is read.

A key is of a kind, and a kind says what it refuses and what at its very bounds it still takes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest

from incentive_fleet.events.document import shown
from incentive_fleet.incentives.campaign_file import _ADAPTERS, CampaignFileError, parse_campaigns
from incentive_fleet.incentives.campaign_tables import CreditTable
from tests.domain import terms

Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a key refuses, and what it takes."""

    refused: list[object]
    taken: list[object]


NO_TEXT: list[object] = [5, 5.0, True, [], ["a"], {}]
TEXT = Kind([*NO_TEXT, "", "x" * 201, "a\tb", "a\n", "\x85"], ["x", "x" * 200, " ", "\u2028"])
FLAG = Kind([0, 1, 1.0, "true", "", [], {}], [True, False])
TEXTS = Kind(["x", 5, True, {}, [5], [""], ["x" * 201], ["a\n"], [["a"]], ["a"] * 1_001], [[], ["a"], ["a", "a"]])
LINE_KINDS = Kind(
    ["goods", 5, {}, [], [5], [""], ["Goods"], ["goods", "gift"]], [["tip"], ["goods", "fee", "deposit", "tip"]]
)


def whole(least: int, most: int) -> Kind:
    wrong = [True, False, 5.0, "5", [], [5], {}, float("nan"), float("inf"), least - 1, most + 1, -(2**63), 2**64]
    return Kind(wrong, [least, most])


COUNT, MINOR, RATE, DAYS = whole(1, 10**12), whole(1, 10**15), whole(1, 10_000), whole(1, 3_650)
TIER = {"min_subtotal": 5, "amount": 1}
TIERS = Kind(
    [
        5,
        "x",
        {},
        TIER,
        [],
        [5],
        [{**TIER, "min_subtotal": n} for n in range(21)],
        [TIER, TIER],
        [TIER, {**TIER, "min_subtotal": 4}],
    ],
    [[{**TIER, "min_subtotal": n} for n in range(20)]],
)
NESTED = Kind([5, "x", True, [], [{}]], [])
CURRENCY = Kind([*NO_TEXT, "", "eur", "EURO", "XAU"], ["EUR", "HRK"])

COUPON: Table = {"auto": True, "amount": 5}
TIERED: Table = {"auto": True, "tiers": [TIER]}
BUY_GET: Table = {"auto": True, "buy_get": {"buy": 2, "get": 1}}
SET_PRICE: Table = {"auto": True, "set_price": {"units": 3, "price": 900}}
ALL: Table = {"id": TEXT, "currency": CURRENCY, "budget": whole(1, 10**18)}
SELECTIVE: Table = {
    "max_amount": MINOR,
    "min_subtotal": MINOR,
    "min_basket": MINOR,
    "recheck_minimum": FLAG,
    "line_kinds": LINE_KINDS,
    "categories": TEXTS,
    "excluded_categories": TEXTS,
}
# By kind and a table that is right: the keys in it, and those that may join it.
KEYS: list[tuple[str, Table, Table]] = [
    (
        "coupon",
        COUPON,
        ALL
        | SELECTIVE
        | {"amount": MINOR, "auto": Kind([False, 1, 1.0, "true", []], [True])}
        | {"per_customer": COUNT, "total": COUNT, "first_orders": COUNT, "audience": TEXT, "not_audience": TEXT}
        | {"stacking": Kind([*NO_TEXT, "", "Exclusive", "never"], ["exclusive", "stackable"])},
    ),
    ("coupon", {"code": "K", "rate_bps": 5}, {"code": TEXT, "rate_bps": RATE}),
    ("coupon", {"codes": "pool", "amount": 5}, {"codes": Kind([*NO_TEXT, "", "Pool", "pools"], ["pool"])}),
    (
        "coupon",
        TIERED,
        {"tiers": TIERS, "tiers.0.min_subtotal": whole(0, 10**15), "tiers.0.amount": MINOR},
    ),
    ("coupon", {"auto": True, "tiers": [{"min_subtotal": 0, "rate_bps": 5}]}, {"tiers.0.rate_bps": RATE}),
    (
        "coupon",
        BUY_GET,
        {
            "buy_get": NESTED,
            "buy_get.buy": COUNT,
            "buy_get.get": COUNT,
            "buy_get.rate_bps": RATE,
            "buy_get.max_sets": COUNT,
        },
    ),
    (
        "coupon",
        SET_PRICE,
        {
            "set_price": NESTED,
            "set_price.units": COUNT,
            "set_price.price": whole(0, 10**15),
            "set_price.max_sets": COUNT,
        },
    ),
    (
        "earn",
        {"amount": 5},
        ALL | SELECTIVE | {"amount": MINOR, "valid_days": DAYS, "reissue_days": DAYS},
    ),
    ("earn", {"rate_bps": 5}, {"rate_bps": RATE}),
    ("earn", {"tiers": [TIER]}, {"tiers": TIERS}),
    (
        "make_good",
        {"amount": 5},
        ALL
        | {"amount": MINOR, "max_amount": MINOR, "grace_minutes": whole(0, 5_256_000)}
        | {"valid_days": DAYS, "reissue_days": DAYS},
    ),
    ("make_good", {"rate_bps": 5}, {"rate_bps": RATE}),
    ("grant", {}, ALL | {"reissue_days": DAYS}),
]
CASES = [(kind, base, path, of) for kind, base, keys in KEYS for path, of in keys.items()]
CREDIT: Table = {"line_kinds": LINE_KINDS, "excluded_categories": TEXTS}


def put(table: Table, path: str, value: object) -> Table:
    """A copy of the table in which this key holds the value."""
    copied = copy.deepcopy(table)
    *steps, last = path.split(".")
    place: Any = copied
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[last] = value
    return copied


def problems(text: str) -> list[str]:
    with pytest.raises(CampaignFileError) as refused:
        parse_campaigns(text)
    return refused.value.problems


def said(value: object) -> str:
    """The value as a sentence shows it."""
    return f"is a table of {len(value)} keys" if isinstance(value, dict) else f"is {shown(value)}"


def test_the_table_has_every_key_of_every_kind() -> None:
    for kind, adapter in _ADAPTERS.items():
        named = {path for of, _, keys in KEYS if of == kind for path in keys if "." not in path}
        known = adapter.json_schema()["properties"].keys()
        assert named == known - {"kind", "starts_at", "ends_at"}, kind
    assert CREDIT.keys() == CreditTable.model_fields.keys()


@pytest.mark.parametrize(("kind", "base", "path", "of"), CASES, ids=[f"{one[0]} {one[2]}" for one in CASES])
def test_a_wrong_value_is_named_with_its_campaign_and_key(kind: str, base: Table, path: str, of: Kind) -> None:
    for value in of.refused:
        [problem] = problems(terms("grant", "fine") + _table(kind, **put({"id": "wrong one"} | base, path, value)))
        name = "'wrong one'" if path != "id" else shown(value) if isinstance(value, str) and value else "number 2"
        elements = [f"{path}.{n}: {said(one)}" for n, one in enumerate(value)] if isinstance(value, list) else []
        told = tuple(f"campaign {name}: {where}" for where in (f"{path}: {said(value)}", *elements))
        assert problem.startswith(told), (value, problem)
        assert len(problem) < 400


@pytest.mark.parametrize(("kind", "base", "path", "of"), CASES, ids=[f"{one[0]} {one[2]}" for one in CASES])
def test_what_lies_at_the_bounds_is_taken(kind: str, base: Table, path: str, of: Kind) -> None:
    for value in of.taken:
        [(campaign, _)] = parse_campaigns(terms(kind, **put({"id": "c"} | base, path, value))).campaigns
        assert campaign.kind == kind


@pytest.mark.parametrize(("kind", "base"), [(kind, base) for kind, base, _ in KEYS])
def test_a_key_that_another_kind_has_is_none_of_this(kind: str, base: Table) -> None:
    known = _ADAPTERS[kind].json_schema()["properties"].keys()
    others = {key for adapter in _ADAPTERS.values() for key in adapter.json_schema()["properties"]} - known
    for key in (*sorted(others), "colour"):
        [problem] = problems(terms(kind, "wrong one", **base | {key: 5}))
        assert problem == f"campaign 'wrong one': {key}: is 5: is not a key of this kind"


def test_a_key_that_must_be_there_is_missed_by_its_name() -> None:
    for kind, base, _ in KEYS:
        for key in ("currency", "starts_at", "ends_at"):
            lines = [line for line in terms(kind, "c", **base).splitlines() if not line.startswith(f"{key} =")]
            assert problems("\n".join(lines)) == [f"campaign 'c': {key}: is missing"]
    assert problems("[[campaign]]\nid = 'c'\n") == ["campaign 'c': kind: is missing"]
    for table, missing in (
        ({"tiers": [{"amount": 5}]}, "tiers.0.min_subtotal"),
        ({"buy_get": {"get": 1}}, "buy_get.buy"),
        ({"buy_get": {"buy": 1}}, "buy_get.get"),
        ({"set_price": {"price": 1}}, "set_price.units"),
        ({"set_price": {"units": 1}}, "set_price.price"),
    ):
        assert problems(terms("coupon", "c", auto=True, **table)) == [f"campaign 'c': {missing}: is missing"]
    for table, key in (
        ({"tiers": [TIER | {"max_sets": 5}]}, "tiers.0.max_sets"),
        ({"buy_get": {"buy": 1, "get": 1, "amount": 5}}, "buy_get.amount"),
        ({"set_price": {"units": 1, "price": 1, "rate_bps": 5}}, "set_price.rate_bps"),
    ):
        assert problems(terms("coupon", "c", auto=True, **table)) == [
            f"campaign 'c': {key}: is 5: is not a key of this kind"
        ]


@pytest.mark.parametrize("key", CREDIT)
def test_the_credit_table_is_held_to_the_same(key: str) -> None:
    for value in CREDIT[key].refused:
        [problem] = problems(terms("grant", "fine") + "[credit]\n" + _toml(key, value))
        assert problem.startswith(f"[credit]: {key}"), problem
        assert "is " in problem
    for value in CREDIT[key].taken:
        assert parse_campaigns("[credit]\n" + _toml(key, value)).credit is not None
    assert problems("[credit]\ncategories = ['a']\n") == [
        "[credit]: categories: is a list of 1: is not a key of this kind"
    ]
    assert problems("credit = 5\n") == ["[credit]: is 5: a table is needed"]
    assert problems("[[credit]]\n") == ["[credit]: is a list of 1: a table is needed"]


def _table(kind: str, **keys: Any) -> str:
    return terms(kind, **keys).replace("NaN", "nan").replace("Infinity", "inf")


def _toml(key: str, value: object) -> str:
    return terms("grant", "g", **{key: value}).splitlines()[-1] + "\n"


@pytest.mark.parametrize(
    ("starts_at", "told"),
    [
        ("5", "starts_at: is 5: a time is needed, without quotes"),
        ("true", "starts_at: is true: a time is needed"),
        ("[]", "starts_at: is a list of 0: a time is needed"),
        ("{}", "starts_at: is a table of 0 keys: a time is needed"),
        ("'2020-01-01T00:00:00Z'", "starts_at: is '2020-01-01T00:00:00Z': a time is needed, without quotes"),
        ("2020-01-01", "starts_at: is 2020-01-01: a time is needed"),
        ("10:00:00", "starts_at: is 10:00:00: a time is needed"),
        ("2020-01-01T00:00:00", "starts_at: is 2020-01-01T00:00:00: needs an offset"),
        (
            "1970-01-01T00:00:00+01:00",
            "starts_at: is 1970-01-01T00:00:00+01:00: must lie in the years 1970 to 2199 in UTC",
        ),
        ("2199-12-31T23:30:00-01:00", "starts_at: is 2199-12-31T23:30:00-01:00: must lie in the years 1970 to 2199"),
        ("0001-01-01T00:00:00+14:00", "starts_at: is 0001-01-01T00:00:00+14:00: must lie in the years 1970 to 2199"),
        ("2030-01-01T00:00:00Z", "ends_at must be later than starts_at"),
    ],
)
def test_a_window_is_two_moments_of_which_the_first_is_earlier(starts_at: str, told: str) -> None:
    [problem] = problems(terms("grant", "g", starts_at=starts_at))
    assert problem.startswith(f"campaign 'g': {told}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = " + "9" * 5_000, "not read: a number has thousands of digits"),
        ("a = " + "[" * 5_000 + "]" * 5_000, "not read: lists and tables are nested too deep"),
        ("a = 2019-12-31T23:59:60Z", "not TOML: "),
        ("a = 1\na = 2", "not TOML: Cannot overwrite a value"),
        ("a = NaN", "not TOML: Invalid value"),
        ("a = '\x7f'", "not TOML: Found invalid character"),
        ("campaign = [5]", "campaign number 1: is 5: a table is needed"),
        ("[campaign]\nid = 'x'", "campaign: at least one [[campaign]] table is needed"),
    ],
)
def test_what_is_no_campaign_file_at_all_is_a_sentence(text: str, told: str) -> None:
    [problem] = problems(text)
    assert problem.startswith(told)
