"""Lots (rules 5.3, 6.4 and 8): in which order they burn, when they expire, and how a grant is taken back."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.domain import World, day, line, placed, refunded


def test_lots_burn_soonest_expiry_first_no_expiry_last_then_oldest_first() -> None:
    world = World()
    for until in (None, day(9), day(5), None, day(5)):
        world.give(10, until=until)
    world.take(placed(credit=50))
    assert [one.lot_no for one in world.decision().credit.burned] == [3, 5, 2, 1, 4]


@given(
    lots=st.lists(st.tuples(st.integers(1, 500), st.none() | st.integers(-5, 5)), max_size=8),
    wanted=st.integers(0, 3_000),
)
def test_a_burn_takes_what_is_unexpired_in_order_and_no_more(lots: list[tuple[int, int | None]], wanted: int) -> None:
    world = World()
    for amount, until in lots:
        world.give(amount, until=None if until is None else day(until))
    usable = sum(amount for amount, until in lots if until is None or until > 0)
    world.take(placed("o1", line(unit_price=2_000), credit=wanted))
    burned = world.decision().credit.burned
    assert sum(one.amount for one in burned) == min(wanted, usable, 2_000)
    emptied = [one for one in burned[:-1] if world.wallet().lots[one.lot_no].remaining]
    assert not emptied, "only the last lot burned may have something left"
    world.assert_sound()


def test_a_lot_expires_at_its_moment_and_once() -> None:
    world = World()
    world.give(10, until=day(3))
    world.give(20)
    assert world.sweep(day(3) - timedelta(microseconds=1)) == 0
    assert world.sweep(day(3)) == 10
    assert world.sweep(day(9)) == 0
    assert world.balances == {"breakage": 10, "campaign:gift": 30, "wallet:ann": 20}
    expiry = world.postings[-1]
    assert (expiry.cause, expiry.happened_at, expiry.lot_no) == ("expiry", day(3), 1)


def test_what_expired_leaves_the_balance_and_its_burns_stay() -> None:
    world = World()
    world.give(100, until=day(3))
    world.take(placed(credit=60))
    world.sweep(day(4))
    assert world.balances == {"breakage": 40, "campaign:gift": 100, "order:o1": 60}


def test_a_grant_is_taken_back_as_far_as_it_is_left_reissues_included() -> None:
    world = World()
    granted = world.give(100, until=day(10))
    world.give(50)
    world.take(placed("o1", credit=60), refunded(order="o1", at=day(2)))
    assert world.lots() == [(1, 40), (2, 50), (3, 60)], "the 60 came back as a new lot: the first ends too soon"
    world.take(placed("o2", credit=30))
    assert world.take_back(granted) == 70
    assert world.lots() == [(2, 50)]
    assert world.take_back(granted) == 0
    world.take(refunded(order="o2"))
    assert world.balance("wallet:ann") == 80, "credit that returns later stays with the customer"
    world.assert_sound()


def test_another_customers_wallet_is_never_touched() -> None:
    world = World()
    world.give(100, customer="ann")
    world.give(100, customer="bob")
    world.take(placed("o1", customer="ann", credit=500))
    assert world.balance("wallet:bob") == 100
