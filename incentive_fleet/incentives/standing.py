"""What stands on an order after a fact, line by line, and what is due back in money (rules 10). Pure; it moves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.money import half_up


def lines(decision: Decision, gone: list[int]) -> list[dict[str, Any]]:
    """Each line of the basket that counts, less what `gone` (R of each line) takes of it and of its shares."""
    if not decision.coupons and not decision.credit.applied:
        return [
            {"line_id": line_id, "gross": gross - away, "discount": 0, "credit": 0, "payable": gross - away}
            for line_id, gross, away in zip(decision.line_ids, decision.gross, gone, strict=True)
        ]
    discounts = _standing([coupon.shares for coupon in decision.coupons], decision.gross, gone)
    credits = _standing([decision.credit.shares], decision.gross, gone)
    return [
        {
            "line_id": line_id,
            "gross": gross - away,
            "discount": discount,
            "credit": credit,
            "payable": gross - away - discount - credit,
        }
        for line_id, gross, away, discount, credit in zip(
            decision.line_ids, decision.gross, gone, discounts, credits, strict=True
        )
    ]


def money_due(decision: Decision, gone: list[int]) -> int:
    """What is due back in all when R of each line is `gone`: paid in full where all of a line went, else in proportion."""
    if not any(gone):
        return 0
    due = 0
    for gross, away, paid in zip(decision.gross, gone, _paid(decision), strict=True):
        if away:
            due += paid if away == gross else half_up(paid * away, gross)
    return due


def _standing(shares: list[list[int]], gross: list[int], gone: list[int]) -> list[int]:
    """By line, what is left of the shares; each is rounded by itself."""
    shares = [one for one in shares if one]
    if not shares:
        return [0] * len(gross)
    if not any(gone):
        return shares[0] if len(shares) == 1 else [sum(parts) for parts in zip(*shares, strict=True)]
    return [
        sum([_left(part, whole, away) for part in parts])
        for whole, away, *parts in zip(gross, gone, *shares, strict=True)
    ]


def _left(part: int, whole: int, away: int) -> int:
    if not part or not away:
        return part
    return 0 if away == whole else part - half_up(part * away, whole)


def _paid(decision: Decision) -> Iterator[int]:
    shares = [one for one in (*(coupon.shares for coupon in decision.coupons), decision.credit.shares) if one]
    for gross, *parts in zip(decision.gross, *shares, strict=True):
        yield gross - sum(parts)
