"""The table of currencies holds what ISO 4217 lists, active or retired, and leaves out what has no minor unit."""

from __future__ import annotations

import pytest

from incentive_fleet.events.codec import decode
from incentive_fleet.events.currencies import MINOR_DIGITS
from tests.event_bodies import ORDER, changed, encoded


@pytest.mark.parametrize(
    ("code", "digits"),
    [("EUR", 2), ("JPY", 0), ("ISK", 0), ("KWD", 3), ("TND", 3), ("CLF", 4), ("UYW", 4), ("MRU", 2), ("UYI", 0)],
)
def test_minor_digits(code: str, digits: int) -> None:
    assert MINOR_DIGITS[code] == digits


@pytest.mark.parametrize("code", ["SLE", "XCG", "ZWG", "VED", "XAD", "CHE", "MXV"])
def test_recent_and_fund_codes_are_known(code: str) -> None:
    assert code in MINOR_DIGITS


@pytest.mark.parametrize(
    ("code", "digits"),
    [
        *((code, 2) for code in ("ANG", "BGN", "CUC", "DEM", "HRK", "LTL", "MRO", "SLL", "STD", "VEF", "ZMK", "ZWL")),
        *((code, 0) for code in ("BYR", "ESP", "ITL", "TRL")),
        ("YDD", 3),
    ],
)
def test_a_currency_that_has_left_the_standard_stays_known(code: str, digits: int) -> None:
    assert MINOR_DIGITS[code] == digits
    assert decode(encoded(changed(ORDER, "data.currency", code))).data.currency == code  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "code",
    ["XAU", "XPD", "XBA", "XDR", "XSU", "XUA", "XTS", "XXX", "XFO", "XRE", "ZAL", "BEC", "USS", "eur", "hrk", ""],
)
def test_metals_funds_tests_and_misspelt_codes_are_not(code: str) -> None:
    assert code not in MINOR_DIGITS


def test_every_code_is_three_letters_and_stands_once() -> None:
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in MINOR_DIGITS)
    # Active, counted against the 181 codes of 2022's list: less 6 withdrawn, less 13 without minor unit, and 3 new ones.
    assert len(MINOR_DIGITS) == 165 + 115
