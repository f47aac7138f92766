"""What campaigns did: spend, redemptions by day, refusals by reason, terms by version."""

from __future__ import annotations

from incentive_fleet.ledger.campaign_reports import (
    campaign_versions,
    list_campaigns,
    redemptions_by_day,
    refusals_by_reason,
)
from incentive_fleet.ledger.session import Session
from tests.domain import day, placed, refunded, terms, text
from tests.small_world import apply, load

TERMS = (
    terms("coupon", "a", code="A", amount=100, total=2),
    terms("coupon", "b", code="B", amount=50),
    terms("earn", "e", rate_bps=1_000, budget=150),
)


def test_redemptions_are_told_by_the_day_of_the_order(session: Session) -> None:
    load(session, *TERMS)
    for number, when in enumerate((1, 1, 3)):
        apply(session, placed(f"o{number}", coupons=["B"], at=day(when)))
    apply(session, refunded(order="o2", at=day(4)))
    found = redemptions_by_day(session.connection, ["a", "b"])
    assert found["a"] == []
    assert [(one.day, one.redemptions, one.discount, one.released) for one in found["b"]] == [
        (text(day(3))[:10], 1, 50, 1),
        (text(day(1))[:10], 2, 100, 0),
    ]
    [only] = redemptions_by_day(session.connection, ["b"], until=day(2))["b"]
    assert only.day == text(day(1))[:10]


def test_refusals_are_counted_by_campaign_and_reason(session: Session) -> None:
    load(session, *TERMS)
    for number in range(4):
        apply(session, placed(f"o{number}", coupons=["A", "B", "nobody's"]))
    found = refusals_by_reason(session.connection, ["a", "b", "e"])
    told = {campaign: [(one.reason, one.times) for one in rows] for campaign, rows in found.items()}
    assert told == {"a": [("total-limit", 2)], "b": [("not-stackable", 2)], "e": [("budget-exhausted", 3)]}
    assert found["a"][0].because == "it has been used as often as allowed"


def test_versions_come_current_first_and_a_page_begins_behind_a_campaign(session: Session) -> None:
    load(session, *TERMS)
    load(session, terms("coupon", "a", code="A", amount=120, total=2))
    versions = campaign_versions(session.connection, ["a", "b"])
    assert [(one.version, one.terms["amount"]) for one in versions["a"]] == [(2, 120), (1, 100)]
    assert [one.version for one in versions["b"]] == [1]
    apply(session, placed("o", coupons=["A"]))
    assert [(one["campaign_id"], one["net_spend"]) for one in list_campaigns(session.connection, limit=1)] == [
        ("a", 120)
    ]
    assert [one["campaign_id"] for one in list_campaigns(session.connection, after="a", limit=1)] == ["b"]
    assert [one["campaign_id"] for one in list_campaigns(session.connection, ids=["e"])] == ["e"]
