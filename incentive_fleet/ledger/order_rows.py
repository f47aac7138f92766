"""An order's decision, final basket and progress as plain rows, with the reasons in words. Pure."""

from __future__ import annotations

from typing import Any, Final

from incentive_fleet.events.times import format_time
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.refusals import MEANINGS, RefusalCode
from incentive_fleet.incentives.running_totals import RunningTotals, reversed_of

Row = dict[str, Any]

WORTH_NO_MORE: Final = {
    RefusalCode.BELOW_MINIMUM: "no line that it is for was picked, or a minimum is missed",
    RefusalCode.NO_DISCOUNT: "it comes to nothing on what was picked",
    RefusalCode.BUDGET_EXHAUSTED: "the campaign's budget bears no more than before",
}


def decision_row(decision: Decision) -> Row:
    """The decision with the lines that its shares run over."""
    credit = decision.credit
    return {
        "lines": [
            {"line_id": line_id, "unit_price": price, "gross": gross}
            for line_id, price, gross in zip(decision.line_ids, decision.unit_prices, decision.gross, strict=True)
        ],
        "coupons": [
            {
                "code": c.code,
                "campaign_id": c.campaign_id,
                "version": c.version,
                "discount": c.discount,
                "shares": c.shares,
            }
            for c in decision.coupons
        ],
        "credit": {
            "requested": credit.requested,
            "applied": credit.applied,
            "shortfall": credit.shortfall,
            "shares": credit.shares,
            "burned": [{"lot_no": b.lot_no, "amount": b.amount} for b in credit.burned],
        },
        "earned": [
            {
                "campaign_id": e.campaign_id,
                "version": e.version,
                "amount": e.amount,
                "shares": e.shares,
                "valid_days": e.valid_days,
                "reissue_days": e.reissue_days,
            }
            for e in decision.earned
        ],
        "refusals": [
            {
                "code": r.code or None,
                "campaign_id": r.campaign_id,
                "version": r.version,
                "reason": r.reason,
                "because": MEANINGS[r.reason],
            }
            for r in decision.refusals
        ],
    }


def final_basket_row(placed: Decision, final: Decision) -> Row:
    """The final basket's decision, with what each incentive was worth at the placing, what it is worth now, and why."""
    coupons = zip(placed.coupons, final.coupons, strict=True)
    earned = zip(placed.earned, final.earned, strict=True)
    worth = [
        *(_worth(was.code or was.campaign_id, was.discount, now.discount, now.limit) for was, now in coupons),
        *(_worth(was.campaign_id, was.amount, now.amount, now.limit) for was, now in earned),
        _worth("credit", placed.credit.applied, final.credit.applied, None),
    ]
    return decision_row(final) | {"worth": worth, "all_reversed": final.all_reversed}


def _worth(incentive: str, placed: int, picked: int, limit: RefusalCode | None) -> Row:
    because = WORTH_NO_MORE[limit] if limit else None
    if limit is None and placed != picked:
        because = f"the lines that it is for are worth {'more' if picked > placed else 'less'}"
    return {"incentive": incentive, "placed": placed, "picked": picked, "because": because}


def progress_row(decision: Decision, document: Row) -> Row:
    """How much of the order was taken back: value per line, and how much of each incentive that reversed."""
    totals = RunningTotals.from_json(document, len(decision.line_ids))
    gone = totals.reversed_value(decision.gross)
    taken = reversed_of(decision, gone)
    return {
        "fully_refunded": totals.fully_refunded,
        "cancelled": totals.cancelled,
        "delivered_at": format_time(totals.delivered_at) if totals.delivered_at else None,
        "lines": [
            {
                "line_id": line_id,
                "undelivered": totals.undelivered.get(line, 0),
                "refunded_undelivered": totals.refunded_undelivered.get(line, 0),
                "returned": totals.returned.get(line, 0),
                "reversed_value": gone[line],
            }
            for line, line_id in enumerate(decision.line_ids)
        ],
        "reversed": {
            "coupons": [
                {"campaign_id": c.campaign_id, "amount": amount}
                for c, amount in zip(decision.coupons, taken.coupons, strict=True)
            ],
            "credit": taken.credit,
            "earned": [
                {"campaign_id": e.campaign_id, "amount": amount}
                for e, amount in zip(decision.earned, taken.earned, strict=True)
            ],
        },
        "vested": [
            {
                "campaign_id": v.campaign_id,
                "lot_no": v.lot_no or None,
                "reversed_before": v.reversed_before,
                "clawed_back": v.clawed_back,
            }
            for v in totals.vested
        ],
    }
