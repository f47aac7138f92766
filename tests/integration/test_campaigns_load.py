"""Loading campaign files into the database: all or nothing, every used version kept."""

from __future__ import annotations

import pytest

from incentive_fleet.incentives.campaign_file import CampaignFileError, parse_campaigns
from incentive_fleet.ledger.campaign_reports import list_campaigns
from incentive_fleet.ledger.order_history import order_history
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.terms import LoadSummary, load_campaigns
from tests.domain import back, placed, refunded, terms
from tests.small_world import apply


def _load(session: Session, *tables: str) -> LoadSummary:
    return load_campaigns(session.connection, parse_campaigns("".join(tables)))


def _kept(session: Session) -> list[tuple[str, int, str | None]]:
    return [
        (row["campaign_id"], row["version"], row["terms"].get("code")) for row in list_campaigns(session.connection)
    ]


def test_loading_again_changes_nothing_and_a_change_is_a_new_version(session: Session) -> None:
    first = (terms("coupon", "a", code="A", amount=1), terms("grant", "g"))
    assert _load(session, *first) == LoadSummary(2, 0, 0)
    assert _load(session, *first) == LoadSummary(0, 0, 2)
    assert _load(session, terms("coupon", "a", code="A", amount=2)) == LoadSummary(0, 1, 0)
    assert _kept(session) == [("a", 2, "A"), ("g", 1, None)]


def test_two_campaigns_swap_their_codes_in_one_load(session: Session) -> None:
    _load(session, terms("coupon", "a", code="ONE", amount=1), terms("coupon", "b", code="TWO", amount=2))
    _load(session, terms("coupon", "a", code="TWO", amount=1), terms("coupon", "b", code="one", amount=2))
    assert _kept(session) == [("a", 2, "TWO"), ("b", 2, "ONE")]
    apply(session, placed("o", coupons=["ONE"]))
    history = order_history(session.connection, "o")
    assert history is not None
    assert [(t["debit_account"], t["amount"]) for t in history.transfers] == [("campaign:b", 2)]


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (terms("coupon", "b", code="A", amount=1), ("'b'", "code", "'A'", "'a'")),
        (terms("earn", "a", amount=1), ("'a'", "kind", "'earn'", "'coupon'")),
        (terms("coupon", "a", code="A", amount=1, currency="USD"), ("'a'", "currency", "'USD'", "'EUR'")),
    ],
)
def test_what_cannot_be_loaded_loads_nothing_of_its_file(session: Session, table: str, named: tuple[str, ...]) -> None:
    _load(session, terms("coupon", "a", code="A", amount=1))
    before = _kept(session)
    with pytest.raises(CampaignFileError) as refused:
        _load(session, terms("grant", "fine"), table)
    assert all(part in str(refused.value) for part in named), refused.value
    assert _kept(session) == before


def test_an_order_is_reversed_by_its_own_decision_and_not_by_todays_terms(session: Session) -> None:
    _load(session, terms("coupon", "a", code="A", amount=100))
    apply(session, placed("o", coupons=["A"]))
    _load(session, terms("coupon", "a", code="GONE", amount=1))
    apply(session, refunded("r1", back(amount=500), order="o"))
    history = order_history(session.connection, "o")
    assert history is not None
    assert history.standing == 50
    assert [(kept["version"], kept["terms"]["amount"]) for kept in history.terms] == [(1, 100)]


def test_another_session_meets_new_terms_with_its_next_batch(session: Session, database_url: str) -> None:
    _load(session, terms("coupon", "a", code="A", amount=100))
    other = Session(database_url)
    apply(other, placed("o1", coupons=["A"]))
    _load(session, terms("coupon", "a", code="A", amount=7))
    apply(other, placed("o2", coupons=["A"]))
    histories = [order_history(other.connection, order) for order in ("o1", "o2")]
    assert [history.standing for history in histories if history] == [100, 7]
    other.close()
