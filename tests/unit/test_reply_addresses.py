"""Whom the fleet answers: what is allowed, and no address that a way to it may read as another one's."""

from __future__ import annotations

import pytest

from incentive_fleet.reply_addresses import ADDRESS_MAX, read_reply_addresses

SQS = "https://sqs.eu-central-1.amazonaws.com/123456789012/"
ALLOWED = read_reply_addresses(
    f"checkout.replies, checkout-*, {SQS}*, {SQS}named", ["incentives-order-placed", "orders.fifo"]
)


@pytest.mark.parametrize(
    "address", ["checkout.replies", "checkout-1", "checkout-ä b/%?#", f"{SQS}shop", f"{SQS}shop.fifo", f"{SQS}named"]
)
def test_what_is_allowed_is_answered(address: str) -> None:
    assert ALLOWED.holds(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "checkout.repliesx",
        "incentives-order-placed",
        f"checkout-{'x' * ADDRESS_MAX}",
        *(
            f"{SQS}{rest}"
            for rest in (
                "incentives-order-placed",
                "incentives-order-placed/",
                "incentives-order-placed?",
                "orders.fifo",
            )
        ),
        *(
            f"{SQS}{rest}"
            for rest in ("x/../incentives-order-placed#", "./incentives-order-placed/.", "%69ncentives-order-placed")
        ),
        *(f"{SQS}{rest}" for rest in ("", "a//b", "a b", "a\\b", "a\n", "incentives-order-placed\x00", "\u017fhop")),
        "https://sqs.eu-central-1.amazonaws.com@evil.example/123456789012/x",
        f"{SQS.upper()}shop",
    ],
)
def test_what_is_not_allowed_or_may_be_read_otherwise_is_not_answered(address: str) -> None:
    assert not ALLOWED.holds(address)
