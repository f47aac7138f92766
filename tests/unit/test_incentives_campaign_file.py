"""The campaign file (rules 9): every error names campaign, field and value, and a file is read whole or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from incentive_fleet.incentives.campaign_file import CampaignFileError, campaign_from_terms, parse_campaigns
from tests.domain import day, terms


def _problems(text: str) -> list[str]:
    with pytest.raises(CampaignFileError) as refused:
        parse_campaigns(text)
    return refused.value.problems


VALID: list[tuple[str, dict[str, Any]]] = [
    ("coupon", {"code": "K", "amount": 1}),
    ("coupon", {"code": "K", "rate_bps": 10_000, "max_amount": 5, "min_subtotal": 1, "stacking": "stackable"}),
    ("coupon", {"codes": "pool", "tiers": [{"min_subtotal": 0, "amount": 5}, {"min_subtotal": 9, "rate_bps": 1}]}),
    (
        "coupon",
        {"auto": True, "buy_get": {"buy": 2, "get": 1, "rate_bps": 5_000, "max_sets": 3}, "line_kinds": ["fee", "tip"]},
    ),
    ("coupon", {"auto": True, "set_price": {"units": 3, "price": 0}, "min_basket": 9, "recheck_minimum": True}),
    ("coupon", {"code": "K", "amount": 1, "first_orders": 2, "audience": "vip", "not_audience": "staff"}),
    ("earn", {"tiers": [{"min_subtotal": 0, "amount": 5}], "min_basket": 5, "line_kinds": ["goods"]}),
    (
        "coupon",
        {"code": "K", "amount": 1, "categories": ["a"], "excluded_categories": ["b"], "per_customer": 1, "total": 9},
    ),
    ("earn", {"rate_bps": 1, "valid_days": 3_650, "reissue_days": 1}),
    ("make_good", {"amount": 5, "grace_minutes": 0, "max_amount": 3, "valid_days": 1}),
    ("grant", {"budget": 1, "reissue_days": 3_650}),
]


@pytest.mark.parametrize(("kind", "keys"), VALID)
def test_terms_that_can_be_read_come_back_from_their_stored_form(kind: str, keys: dict[str, Any]) -> None:
    [(campaign, plain)] = parse_campaigns(terms(kind, "c", **keys)).campaigns
    assert campaign.kind == kind
    assert campaign_from_terms(plain, 0) == campaign


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("coupon", {"amount": 1}, "code", "exactly one"),
    ("coupon", {"amount": 1, "code": "K", "auto": True}, "code", "exactly one"),
    ("coupon", {"amount": 1, "codes": "pool", "auto": True}, "codes", "exactly one"),
    ("coupon", {"amount": 1, "codes": "many"}, "codes", "'many'"),
    ("coupon", {"amount": 1, "auto": False}, "auto", "false"),
    ("coupon", {"amount": 1, "auto": True, "line_kinds": []}, "line_kinds", "a list of 0"),
    ("coupon", {"amount": 1, "auto": True, "line_kinds": ["food"]}, "line_kinds", "'food'"),
    ("coupon", {"amount": 1, "auto": True, "min_basket": 0}, "min_basket", "0"),
    ("coupon", {"amount": 1, "auto": True, "min_subtotal": 0}, "min_subtotal", "0"),
    ("coupon", {"amount": 1, "auto": True, "first_orders": 0}, "first_orders", "0"),
    ("coupon", {"amount": 1, "auto": True, "audience": ""}, "audience", "''"),
    ("coupon", {"amount": 1, "auto": True, "budget": 0}, "budget", "0"),
    ("coupon", {"amount": 1, "auto": True, "recheck_minimum": 1}, "recheck_minimum", "1"),
    ("coupon", {"auto": True, "tiers": []}, "tiers", "a list of 0"),
    ("coupon", {"auto": True, "tiers": [{"min_subtotal": 5, "amount": 1}], "min_subtotal": 5}, "min_subtotal", "tiers"),
    ("coupon", {"auto": True, "tiers": [{"min_subtotal": 5}]}, "tiers.0", "exactly one"),
    ("coupon", {"auto": True, "tiers": [{"amount": 5}]}, "tiers.0.min_subtotal", "missing"),
    (
        "coupon",
        {"auto": True, "tiers": [{"min_subtotal": 5, "amount": 1}, {"min_subtotal": 5, "amount": 2}]},
        "tiers",
        "above",
    ),
    ("coupon", {"auto": True, "buy_get": {"buy": 1}}, "buy_get.get", "missing"),
    ("coupon", {"auto": True, "buy_get": {"buy": 0, "get": 1}}, "buy_get.buy", "0"),
    ("coupon", {"auto": True, "buy_get": {"buy": 1, "get": 1}, "amount": 1}, "amount and buy_get", "exactly one"),
    ("coupon", {"auto": True, "set_price": {"units": 0, "price": 1}}, "set_price.units", "0"),
    ("coupon", {"auto": True, "set_price": {"units": 2, "price": -1}}, "set_price.price", "-1"),
    ("earn", {"buy_get": {"buy": 1, "get": 1}, "amount": 1}, "buy_get", "not a key"),
    ("earn", {"amount": 5, "first_orders": 1}, "first_orders", "not a key"),
    ("make_good", {"amount": 5, "tiers": []}, "tiers", "not a key"),
    ("coupon", {"code": "", "amount": 1}, "code", "''"),
    ("coupon", {"code": "K"}, "rate_bps", "exactly one"),
    ("coupon", {"code": "K", "amount": 1, "rate_bps": 1}, "amount", "exactly one"),
    ("coupon", {"code": "K", "rate_bps": 0}, "rate_bps", "0"),
    ("coupon", {"code": "K", "rate_bps": 10_001}, "rate_bps", "10001"),
    ("coupon", {"code": "K", "rate_bps": 5.0}, "rate_bps", "5.0"),
    ("coupon", {"code": "K", "amount": "5"}, "amount", "'5'"),
    ("coupon", {"code": "K", "amount": True}, "amount", "true"),
    ("coupon", {"code": "K", "amount": -5}, "amount", "-5"),
    ("coupon", {"code": "K", "amount": 5, "stacking": "always"}, "stacking", "'always'"),
    ("coupon", {"code": "K", "amount": 5, "valid_days": 5}, "valid_days", "not a key"),
    ("coupon", {"code": "K", "amount": 5, "categories": "x"}, "categories", "'x'"),
    ("coupon", {"code": "K", "amount": 5, "total": 0}, "total", "0"),
    ("coupon", {"code": "K", "amount": 5, "per_customer": 0}, "per_customer", "0"),
    ("coupon", {"code": "K", "amount": 5, "budget": -1}, "budget", "-1"),
    ("coupon", {"code": "K", "amount": 5, "currency": "EURO"}, "currency", "'EURO'"),
    ("coupon", {"code": "K", "amount": 5, "ends_at": day(-9_999)}, "ends_at", "later"),
    ("coupon", {"code": "K", "amount": 5, "colour": "red"}, "colour", "not a key"),
    ("earn", {"amount": 5, "valid_days": 0}, "valid_days", "0"),
    ("earn", {"amount": 5, "valid_days": 3_651}, "valid_days", "3651"),
    ("earn", {"amount": 5, "reissue_days": 0}, "reissue_days", "0"),
    ("earn", {"amount": 5, "code": "K"}, "code", "not a key"),
    ("earn", {"amount": 5, "total": 5}, "total", "not a key"),
    ("make_good", {"amount": 5, "min_subtotal": 5}, "min_subtotal", "not a key"),
    ("make_good", {"amount": 5, "grace_minutes": -1}, "grace_minutes", "-1"),
    ("grant", {"amount": 5}, "amount", "not a key"),
    ("grant", {"valid_days": 5}, "valid_days", "not a key"),
    ("gift", {}, "kind", "'gift'"),
]


@pytest.mark.parametrize(("kind", "keys", "field", "value"), REFUSED)
def test_an_error_names_campaign_field_and_value(kind: str, keys: dict[str, Any], field: str, value: str) -> None:
    [problem] = _problems(terms("grant", "fine") + terms(kind, "wrong one", **keys))
    assert "'wrong one'" in problem
    assert field in problem
    assert value in problem


def test_every_problem_of_a_file_is_told_at_once() -> None:
    problems = _problems(terms("earn", "a", amount=0, valid_days=0) + terms("coupon", "b", amount=1) + "\n[other]\n")
    assert len(problems) == 4
    assert problems[0].startswith("other:")


def test_a_moment_needs_an_offset() -> None:
    [problem] = _problems(terms("grant", "g").replace("2020-01-01T00:00:00Z", "2020-01-01T00:00:00"))
    assert "starts_at" in problem
    assert "offset" in problem


def test_ids_and_codes_are_unique_after_upper_casing() -> None:
    same_id = _problems(terms("grant", "g") + terms("earn", "g", amount=1))
    assert same_id == ["id: 'g' is used by more than one campaign"]
    same_code = _problems(terms("coupon", "a", code="k", amount=1) + terms("coupon", "b", code="K", amount=1))
    assert same_code == ["code: 'K' is used by more than one campaign"]


@pytest.mark.parametrize("text", ["", "campaign = 5", "[campaign]\nid = 1", "[[campaign]\n", "\x00"])
def test_what_is_no_campaign_file_is_refused(text: str) -> None:
    assert _problems(text)


def test_a_table_without_an_id_is_named_by_its_number() -> None:
    [problem, *_] = _problems(terms("grant", "g") + "\n[[campaign]]\nkind = 'grant'\n")
    assert problem.startswith("campaign number 2")
