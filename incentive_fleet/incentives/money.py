"""Arithmetic of whole minor units (rules 4). No float ever touches an amount."""

from __future__ import annotations

from collections.abc import Sequence

FULL_RATE_BPS = 10_000  # basis points in a whole


def half_up(numerator: int, denominator: int) -> int:
    """Round numerator / denominator to the nearest whole number, halves upwards (rules 4.1)."""
    return (2 * numerator + denominator) // (2 * denominator)


def share(total: int, weights: Sequence[int]) -> list[int]:
    """Split `total` minor units over the weights by largest remainder, ties to the earlier line (rules 4.2).

    The parts sum to `total`, unless all weights are zero: then every part is zero.
    """
    whole = sum(weights)
    if whole == 0 or total == 0:
        return [0] * len(weights)
    parts = [total * weight // whole for weight in weights]
    left = total - sum(parts)
    if left:
        remainders = [total * weight % whole for weight in weights]
        by_remainder = sorted(range(len(weights)), key=remainders.__getitem__, reverse=True)
        for line in by_remainder[:left]:
            parts[line] += 1
    return parts
