"""The outcome of a fact as data (rules 10): the `data` member of the CloudEvent that goes into the outbox.

The shapes are described, as models and schemas, in events/outcomes.py; a test holds the two together. They are written
as plain dictionaries here because a batch makes hundreds of them and nobody reads them as objects.
"""

from __future__ import annotations

from typing import Any

from incentive_fleet.events.times import format_time
from incentive_fleet.incentives import standing
from incentive_fleet.incentives.anomalies import Anomaly
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.delivery import Completion, NewCredit
from incentive_fleet.incentives.final_basket import Adjustment
from incentive_fleet.incentives.reversal import CampaignReturn, Reversal
from incentive_fleet.incentives.wallet import Wallet

Data = dict[str, Any]


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
        "lines": standing.lines(decision, [0] * len(decision.gross)),
        "money_due_back": 0,
        "wallet_balance": wallet.balance,
        "debt": wallet.debt,
    }


def adjusted(
    placed: Decision, final: Decision, adjustment: Adjustment, anomalies: list[Anomaly], wallet: Wallet
) -> Data:
    """What a final basket made of each incentive that the placing gave."""
    released = set(adjustment.released)
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
        "credit_returned": adjustment.credit_returned,
        "earned": [
            {"campaign_id": was.campaign_id, "before": was.amount, "after": now.amount}
            for was, now in zip(placed.earned, final.earned, strict=True)
        ],
        "anomalies": _reasons(anomalies),
        "wallet_balance": wallet.balance,
        "debt": wallet.debt,
    }


def reversed_(reversal: Reversal, anomalies: list[Anomaly], wallet: Wallet) -> Data:
    """What a refund took and gave back."""
    return _reversal(reversal, anomalies, wallet)


def reissued(reversal: Reversal, completion: Completion, anomalies: list[Anomaly], wallet: Wallet) -> Data:
    """What a delivery reversed, vested and made good."""
    data = _reversal(reversal, anomalies, wallet)
    data["vested"] = [_new_credit(one) for one in completion.vested]
    data["made_good"] = [_new_credit(one) | {"refusal": one.refusal} for one in completion.made_good]
    return data


def _reversal(reversal: Reversal, anomalies: list[Anomaly], wallet: Wallet) -> Data:
    return {
        "coupons": _amounts(reversal.coupons),
        "credit_returned": reversal.credit_returned,
        "earn_cancelled": _amounts(reversal.earn_cancelled),
        "clawed_back": [
            {"campaign_id": one.campaign_id, "amount": one.amount, "debt": one.debt} for one in reversal.clawed_back
        ],
        "anomalies": _reasons(anomalies),
        "wallet_balance": wallet.balance,
        "debt": wallet.debt,
    }


def _reasons(anomalies: list[Anomaly]) -> list[str]:
    return sorted({anomaly.reason for anomaly in anomalies}) if anomalies else []


def _amounts(rows: list[CampaignReturn]) -> list[Data]:
    return [{"campaign_id": one.campaign_id, "amount": one.amount} for one in rows]


def _new_credit(one: NewCredit) -> Data:
    expires_at = format_time(one.expires_at) if one.expires_at else None
    return {"campaign_id": one.campaign_id, "amount": one.amount, "expires_at": expires_at}
