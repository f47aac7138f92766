"""Rounding of whole minor units (rules 4.1); sharing them over lines is basket.py's. No float ever touches an amount."""

from __future__ import annotations

FULL_RATE_BPS = 10_000  # basis points in a whole


def half_up(numerator: int, denominator: int) -> int:
    """Round numerator / denominator to the nearest whole number, halves upwards (rules 4.1)."""
    return (2 * numerator + denominator) // (2 * denominator)


def value_of(rate_bps: int | None, amount: int | None, base: int) -> int:
    """The amount, or the rate of `base` rounded half up."""
    return amount if amount is not None else half_up(base * (rate_bps or 0), FULL_RATE_BPS)
