"""The arithmetic of rules 4, against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incentive_fleet.incentives.basket import share
from incentive_fleet.incentives.money import half_up

AMOUNTS = st.integers(0, 10**15)
WEIGHTS = st.lists(st.integers(0, 10**15), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"),
    [(0, 7, 0), (1, 2, 1), (3, 2, 2), (1, 3, 0), (2, 3, 1), (5, 10, 1), (4, 10, 0), (-1, 2, 0), (-3, 2, -1), (9, 1, 9)],
)
def test_halves_round_upwards(numerator: int, denominator: int, rounded: int) -> None:
    assert half_up(numerator, denominator) == rounded


@given(st.integers(-(10**40), 10**40), st.integers(1, 10**20))
def test_half_up_is_the_floor_of_the_exact_value_and_a_half(numerator: int, denominator: int) -> None:
    assert half_up(numerator, denominator) == floor(Fraction(numerator, denominator) + Fraction(1, 2))


@given(AMOUNTS, WEIGHTS)
def test_shares_sum_to_the_total_unless_all_weights_are_zero(total: int, weights: list[int]) -> None:
    assert sum(share(total, weights)) == (total if any(weights) else 0)


@given(AMOUNTS, WEIGHTS)
def test_a_share_is_the_exact_one_rounded_down_or_up(total: int, weights: list[int]) -> None:
    whole = sum(weights)
    for part, weight in zip(share(total, weights), weights, strict=True):
        assert whole == 0 or abs(Fraction(total * weight, whole) - part) < 1
        assert weight or part == 0, "a line without weight gets nothing"


@given(AMOUNTS, WEIGHTS)
def test_units_left_over_go_to_the_largest_remainders_ties_to_the_earlier_line(total: int, weights: list[int]) -> None:
    whole = sum(weights)
    if whole == 0:
        return
    remainders = [total * weight % whole for weight in weights]
    rounded_up = [part - total * weight // whole for part, weight in zip(share(total, weights), weights, strict=True)]
    assert set(rounded_up) <= {0, 1}
    in_line = sorted(range(len(weights)), key=lambda line: (-remainders[line], line))
    expected = set(in_line[: sum(rounded_up)])
    assert {line for line, up in enumerate(rounded_up) if up} == expected


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**12), min_size=1, max_size=30))
def test_no_line_gets_more_than_its_weight_when_the_total_does_not_exceed_the_sum(
    total: int, weights: list[int]
) -> None:
    total = min(total, sum(weights))
    assert all(part <= weight for part, weight in zip(share(total, weights), weights, strict=True))


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [
        (10, [1, 1, 1], [4, 3, 3]),
        (11, [1, 1, 1], [4, 4, 3]),
        (2, [1, 1, 1], [1, 1, 0]),
        (100, [333, 333, 334], [33, 33, 34]),
        (5, [0, 0], [0, 0]),
        (0, [3, 4], [0, 0]),
        (7, [0, 5, 0], [0, 7, 0]),
    ],
)
def test_shares_by_example(total: int, weights: list[int], parts: list[int]) -> None:
    assert share(total, weights) == parts
