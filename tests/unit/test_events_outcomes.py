"""The outcomes' models say what an outcome must hold, and the ids that receivers drop repeats by are stable."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from incentive_fleet.errors import Malformed
from incentive_fleet.events.outcomes import OUTCOME_OF, OUTCOME_TYPES, outcome_id, validate_outcome
from incentive_fleet.events.reasons import Reason
from incentive_fleet.events.schemas import schema_of
from tests.event_bodies import REMOVED, changed, encoded

REVERSAL = {
    "coupons": [{"campaign_id": "spring", "amount": 40}],
    "credit_returned": 100,
    "earn_cancelled": [{"campaign_id": "loyal", "amount": 5}],
    "clawed_back": [{"campaign_id": "loyal", "amount": 9, "debt": 4}],
    "anomalies": ["exceeds-gross"],
}
FACTS = {
    "order-placed.v1": "placing",
    "order-finalized.v1": "final-basket",
    "order-refunded.v1": "refund:r1",
    "delivery-completed.v1": "delivery",
}
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "incentives-applied.v1": (
        "order-placed.v1",
        {
            "coupons": [
                {"code": "SPRING", "campaign_id": "spring", "discount": 120, "refusal": None},
                {"code": "NOPE", "campaign_id": None, "discount": 0, "refusal": "unknown-coupon"},
            ],
            "credit": {"requested": 300, "applied": 200, "shortfall": 100, "refusal": None},
            "earned": [
                {"campaign_id": "loyal", "amount": 14, "refusal": None},
                {"campaign_id": "spent", "amount": 0, "refusal": "budget-exhausted"},
            ],
        },
    ),
    "incentives-adjusted.v1": (
        "order-finalized.v1",
        {
            "coupons": [
                {"code": "SPRING", "campaign_id": "spring", "before": 120, "after": 90, "released": False},
                {"code": None, "campaign_id": "auto", "before": 20, "after": 0, "released": True},
            ],
            "credit": {"before": 200, "after": 150},
            "credit_returned": 50,
            "earned": [{"campaign_id": "loyal", "before": 14, "after": 16}],
            "anomalies": [],
        },
    ),
    "incentives-reversed.v1": ("order-refunded.v1", REVERSAL),
    "incentives-reissued.v1": (
        "delivery-completed.v1",
        REVERSAL
        | {
            "vested": [{"campaign_id": "loyal", "amount": 14, "expires_at": "2209-12-31T00:00:00Z"}],
            "made_good": [
                {"campaign_id": "sorry", "amount": 500, "expires_at": None, "refusal": None},
                {"campaign_id": "spent", "amount": 0, "expires_at": None, "refusal": "budget-exhausted"},
            ],
        },
    ),
}


def outcome(type: str) -> dict[str, Any]:
    """A valid outcome of the type."""
    cause, parts = PARTS[type]
    return {
        "specversion": "1.0",
        "id": outcome_id(type, "o-1", FACTS[cause]),
        "source": "/incentive-fleet",
        "type": type,
        "time": "2026-03-01T10:00:00Z",
        "subject": "o-1",
        "datacontenttype": "application/json",
        "data": {
            "order_id": "o-1",
            "customer_id": "c-1",
            "currency": "EUR",
            "sequence": 1,
            "cause": {"source": "/shop", "id": "p-1", "type": cause, "fact": FACTS[cause]},
            **parts,
            "lines": [{"line_id": "a", "gross": 1000, "discount": 120, "credit": 200, "payable": 680}],
            "money_due_back": 0,
            "wallet_balance": 0,
            "debt": 4,
        },
    }


@pytest.mark.parametrize("type", OUTCOME_TYPES)
def test_a_whole_outcome_is_valid_by_model_and_schema(type: str) -> None:
    data = validate_outcome(encoded(outcome(type)))
    assert isinstance(data, OUTCOME_TYPES[type])
    assert [other for other in OUTCOME_TYPES if Draft202012Validator(schema_of(other)).is_valid(outcome(type))] == [
        type
    ]


@pytest.mark.parametrize("type", OUTCOME_TYPES)
def test_no_field_of_the_data_may_be_missing(type: str) -> None:
    for name in outcome(type)["data"]:
        with pytest.raises(Malformed) as caught:
            validate_outcome(encoded(changed(outcome(type), f"data.{name}", REMOVED)))
        assert (caught.value.reason, caught.value.detail) == (Reason.MISSING_FIELD, f"data.{name} is missing")
        assert not Draft202012Validator(schema_of(type)).is_valid(changed(outcome(type), f"data.{name}", REMOVED))


@pytest.mark.parametrize(
    ("path", "value", "detail"),
    [
        ("source", "/other", "source is '/other'"),
        ("type", "incentives-applied.v2", "type is"),
        ("subject", "o-2", "subject is 'o-2'"),
        ("extra", 1, "extra is 1"),
        ("data.extra", 1, "data.extra is 1"),
        ("data.sequence", 0, "data.sequence is 0"),
        ("data.wallet_balance", -1, "data.wallet_balance is -1"),
        ("data.debt", 2**63, "data.debt is"),
        ("data.coupons.0.discount", 1.0, "data.coupons[0].discount is 1.0"),
        ("data.coupons.1.refusal", "because", "data.coupons[1].refusal is 'because'"),
        ("data.earned.1.refusal", "unknown-coupon", "data.earned[1].refusal is"),
        ("data.cause.type", "order-refunded.v1", "data.cause.type is 'order-refunded.v1'"),
        ("data.currency", "XXX", "data.currency is 'XXX'"),
    ],
)
def test_a_slip_of_the_writer_is_named(path: str, value: object, detail: str) -> None:
    with pytest.raises(Malformed) as caught:
        validate_outcome(encoded(changed(outcome("incentives-applied.v1"), path, value)))
    assert caught.value.detail.startswith(detail)


def test_each_type_of_fact_has_its_outcome() -> None:
    assert set(OUTCOME_OF.values()) == OUTCOME_TYPES.keys()


def test_ids_of_outcomes_are_what_they_always_were() -> None:
    assert outcome_id("incentives-applied.v1", "o-1", "placing") == "5bf008e810a2bfdbfbaae39a6e48e19d"
    ids = {
        outcome_id("incentives-applied.v1", "o-1", "placing"),
        outcome_id("incentives-adjusted.v1", "o-1", "final-basket"),
        outcome_id("incentives-reversed.v1", "o-1", "refund:r1"),
        outcome_id("incentives-reversed.v1", "o-1", "refund:r2"),
        outcome_id("incentives-reversed.v1", "o-2", "refund:r1"),
        outcome_id("incentives-reversed.v1", "o-1", "refund:cancelling"),
        outcome_id("incentives-reversed.v1", "o-1", "cancelling"),
        outcome_id("incentives-reissued.v1", "o-1", "delivery"),
    }
    assert len(ids) == 8
