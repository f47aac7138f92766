"""The table of currencies holds what ISO 4217 lists as active and leaves out what it does not."""

from __future__ import annotations

import pytest

from incentive_fleet.events.currencies import MINOR_DIGITS, is_active


@pytest.mark.parametrize(
    ("code", "digits"),
    [("EUR", 2), ("JPY", 0), ("ISK", 0), ("KWD", 3), ("TND", 3), ("CLF", 4), ("UYW", 4), ("MRU", 2), ("UYI", 0)],
)
def test_minor_digits(code: str, digits: int) -> None:
    assert MINOR_DIGITS[code] == digits


@pytest.mark.parametrize("code", ["SLE", "XCG", "ZWG", "VED", "XAD", "CHE", "MXV"])
def test_recent_and_fund_codes_are_active(code: str) -> None:
    assert is_active(code)


@pytest.mark.parametrize("code", ["BGN", "HRK", "ANG", "CUC", "SLL", "ZWL", "XAU", "XDR", "XTS", "XXX", "eur", ""])
def test_withdrawn_unitless_and_misspelt_codes_are_not(code: str) -> None:
    assert not is_active(code)


def test_every_code_is_three_letters_and_stands_once() -> None:
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in MINOR_DIGITS)
    # Counted against the 181 codes of 2022's list: less 6 withdrawn, less 13 without minor unit, and 3 new ones.
    assert len(MINOR_DIGITS) == 165
