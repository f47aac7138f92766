"""What a fact brought, and the outcome that tells it (rules 10): the `data` member of the CloudEvent that goes into the outbox.

The shapes are described, as models and schemas, in events/outcomes.py; a test holds the two together. They are written
as plain dictionaries here because a batch makes hundreds of them and nobody reads them as objects. It moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, assert_never

from incentive_fleet.events.models import DeliveryCompleted, OrderCancelled, OrderFinalized, OrderRefunded
from incentive_fleet.events.times import format_time
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.money import half_up
from incentive_fleet.incentives.refusals import RefusalCode
from incentive_fleet.incentives.running_totals import Fall, Progress
from incentive_fleet.incentives.wallet import Wallet

Data = dict[str, Any]
LaterFact = OrderFinalized | OrderRefunded | OrderCancelled | DeliveryCompleted


class CampaignReturn(NamedTuple):
    """An amount that went back to its campaign, in minor units."""

    campaign_id: str
    amount: int


class Clawback(NamedTuple):
    """Vested credit taken back, in minor units: `amount` in all, of which `debt` the wallet could not cover."""

    campaign_id: str
    amount: int
    debt: int


class NewCredit(NamedTuple):
    """Credit that a delivery brought under one campaign, in minor units; with a `refusal` it brought none."""

    campaign_id: str
    amount: int
    expires_at: datetime | None
    refusal: RefusalCode | None = None


@dataclass(slots=True)
class Effect:
    """What a fact of a placed order brought: what fell with it, and what was booked for that reason, in minor units."""

    fall: Fall
    coupons: list[CampaignReturn] = field(default_factory=list)
    released: list[str] = field(default_factory=list)  # campaigns whose redemption on the order ended
    credit_returned: int = 0
    earn_cancelled: list[CampaignReturn] = field(default_factory=list)
    clawed_back: list[Clawback] = field(default_factory=list)
    vested: list[NewCredit] = field(default_factory=list)
    made_good: list[NewCredit] = field(default_factory=list)


def applied(decision: Decision, wallet: Wallet) -> Data:
    """What a placing brought: each coupon with its discount or its reason, credit, what was earned."""
    coupons: list[Data] = [
        {"code": c.code, "campaign_id": c.campaign_id, "discount": c.discount, "refusal": None}
        for c in decision.coupons
    ]
    earned: list[Data] = [{"campaign_id": e.campaign_id, "amount": e.amount, "refusal": None} for e in decision.earned]
    for refusal in decision.refusals:
        if refusal.code:
            coupons.append(
                {"code": refusal.code, "campaign_id": refusal.campaign_id, "discount": 0, "refusal": refusal.reason}
            )
        else:
            earned.append({"campaign_id": refusal.campaign_id, "amount": 0, "refusal": refusal.reason})
    credit = decision.credit
    return {
        "coupons": coupons,
        "credit": {
            "requested": credit.requested,
            "applied": credit.applied,
            "shortfall": credit.shortfall,
            "refusal": credit.refusal,
        },
        "earned": earned,
        "lines": _lines(decision, [0] * len(decision.gross)),
        "money_due_back": 0,
        "wallet_balance": wallet.balance,
        "debt": wallet.debt,
    }


def changed(fact: LaterFact, progress: Progress, effect: Effect, wallet: Wallet) -> Data:
    """What a fact of a placed order brought, what stands after it, and what it makes due to the customer in money.

    Before an estimated order's final basket nothing is due, for nothing was charged.
    """
    decision, fall = progress.counts, effect.fall
    match fact:
        case OrderFinalized():
            brought = _adjusted(progress.placed, decision, effect)
        case OrderRefunded() | OrderCancelled() | DeliveryCompleted():
            brought = _reversed(effect)
        case _:
            assert_never(fact)
    lines, due = _lines(decision, fall.after), 0
    if fall.after != fall.before and not progress.awaits_final:
        due = _money_due(decision, fall.after) - _money_due(decision, fall.before)
    brought["anomalies"] = sorted({anomaly.reason for anomaly in fall.anomalies}) if fall.anomalies else []
    brought["wallet_balance"], brought["debt"] = wallet.balance, wallet.debt
    if isinstance(fact, DeliveryCompleted):
        brought["vested"] = [_new_credit(one) for one in effect.vested]
        brought["made_good"] = [_new_credit(one) | {"refusal": one.refusal} for one in effect.made_good]
    brought["lines"], brought["money_due_back"] = lines, due
    return brought


def _adjusted(placed: Decision, final: Decision, effect: Effect) -> Data:
    """What a final basket made of each incentive that the placing gave."""
    released = set(effect.released)
    return {
        "coupons": [
            {
                "code": was.code,
                "campaign_id": was.campaign_id,
                "before": was.discount,
                "after": now.discount,
                "released": was.campaign_id in released,
            }
            for was, now in zip(placed.coupons, final.coupons, strict=True)
        ],
        "credit": {"before": placed.credit.applied, "after": final.credit.applied},
        "credit_returned": effect.credit_returned,
        "earned": [
            {"campaign_id": was.campaign_id, "before": was.amount, "after": now.amount}
            for was, now in zip(placed.earned, final.earned, strict=True)
        ],
    }


def _reversed(effect: Effect) -> Data:
    """What was taken and given back."""
    return {
        "coupons": [{"campaign_id": one.campaign_id, "amount": one.amount} for one in effect.coupons],
        "credit_returned": effect.credit_returned,
        "earn_cancelled": [{"campaign_id": one.campaign_id, "amount": one.amount} for one in effect.earn_cancelled],
        "clawed_back": [
            {"campaign_id": one.campaign_id, "amount": one.amount, "debt": one.debt} for one in effect.clawed_back
        ],
    }


def _new_credit(one: NewCredit) -> Data:
    expires_at = format_time(one.expires_at) if one.expires_at else None
    return {"campaign_id": one.campaign_id, "amount": one.amount, "expires_at": expires_at}


def _lines(decision: Decision, gone: list[int]) -> list[dict[str, Any]]:
    """Each line of a basket, less what `gone` (R of each line) takes of it and of its shares."""
    standing = [whole - away for whole, away in zip(decision.gross, gone, strict=True)] if any(gone) else decision.gross
    if not decision.coupons and not decision.credit.applied:
        return [
            {"line_id": line_id, "gross": gross, "discount": 0, "credit": 0, "payable": gross}
            for line_id, gross in zip(decision.line_ids, standing, strict=True)
        ]
    discounts = _standing([coupon.shares for coupon in decision.coupons], decision.gross, gone)
    credits = _standing([decision.credit.shares], decision.gross, gone)
    return [
        {
            "line_id": line_id,
            "gross": gross,
            "discount": discount,
            "credit": credit,
            "payable": gross - discount - credit,
        }
        for line_id, gross, discount, credit in zip(decision.line_ids, standing, discounts, credits, strict=True)
    ]


def _money_due(decision: Decision, gone: list[int]) -> int:
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
