"""What bodies count, when a holder is full, how many more to ask for, and how work is cut into portions."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from incentive_fleet.brokers.budget import AS_DECODED, EACH, NOT_DECODED, Budget, Forecast, portions
from incentive_fleet.events.document import BODY_BYTES_MAX
from incentive_fleet.events.models import LINES_MAX
from incentive_fleet.settings import EVENT_BYTES_MOST, Settings
from tests.memory import MIB, largest_order

sizes = st.integers(0, 4 * MIB)


def test_a_body_counts_as_decoded_and_a_larger_one_as_copied() -> None:
    budget = Budget(64 * MIB, 1_000)
    assert budget.cost(0) == EACH
    assert budget.cost(1_000) == EACH + AS_DECODED * 1_000
    assert budget.cost(1_001) == EACH + NOT_DECODED * 1_001


def test_one_body_larger_than_the_budget_passes_alone() -> None:
    budget = Budget(MIB, MIB)
    assert not budget.full
    budget.take(100 * MIB)
    assert budget.full
    budget.give_back([100 * MIB])
    assert (budget.full, budget.held) == (False, 0)


@given(st.lists(sizes), st.data())
def test_what_was_taken_and_given_back_is_not_held(taken: list[int], data: st.DataObject) -> None:
    budget = Budget(8 * MIB, MIB)
    for size in taken:
        budget.take(size)
    back = data.draw(st.lists(st.sampled_from(taken), unique=True)) if taken else []
    budget.give_back(back)
    assert budget.held == sum(map(budget.cost, taken)) - sum(map(budget.cost, back))
    assert budget.full == (budget.held >= budget.most)
    assert budget.renewed().held == 0


def test_a_forecast_begins_with_the_worst_and_comes_down() -> None:
    budget = Budget(64 * MIB, MIB)
    forecast = Forecast(budget, MIB)
    assert forecast.fitting(budget.most, 10) == 3
    asked = []
    for _ in range(5):
        asked.append(forecast.fitting(budget.most, 10))
        forecast.learn([500, 600])
    assert asked == [3, 10, 10, 10, 10]
    assert forecast.each < budget.cost(MIB) // 200
    forecast.learn([])
    forecast.learn([600, MIB])
    assert forecast.each == budget.cost(MIB)
    assert forecast.fitting(0, 10) == 1  # never nothing: that is for whoever sees that the budget is full


@given(st.lists(st.integers(0, 100)), st.integers(1, 150), st.integers(1, 5))
def test_portions_keep_the_order_and_both_bounds(costs: list[int], most: int, count: int) -> None:
    cut = list(portions(costs, lambda cost: cost, most, count))
    assert [cost for portion in cut for cost in portion] == costs
    for portion in cut:
        assert 1 <= len(portion) <= count
        assert sum(portion) <= most or len(portion) == 1
    for portion, following in pairwise(cut):
        assert len(portion) == count or sum(portion) + following[0] > most  # none is cut short for nothing


def test_the_largest_order_fits_into_the_largest_body() -> None:
    assert EVENT_BYTES_MOST == BODY_BYTES_MAX == Settings().event_bytes_max
    body = largest_order(1)
    assert body.count(b'"line_id"') == LINES_MAX
    assert len(body) + 20 * 200 * 12 < EVENT_BYTES_MOST  # twenty coupons beside
