"""Orders: facts, decision, shares of the lines, transfers, outcomes, anomalies; what `incentives order` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import strawberry
from strawberry.types import Info

from incentive_fleet.console.graphql.reading import Asking, asking_of
from incentive_fleet.console.graphql.scalars import Document, Long, MinorUnits, Time, shows
from incentive_fleet.console.visitors import Work
from incentive_fleet.errors import Refused
from incentive_fleet.ledger.order_history import OrderHistory, order_histories

ORDERS_MAX: Final = 100  # read at once; one may have 2,000 lines


@strawberry.type(name="Fact", description="A validated event about the order.")
class FactShown:
    fact: str
    source: str
    event_id: str
    digest: str
    trace_id: str | None
    happened_at: Time
    recorded_at: Time
    waiting_since: Time | None
    data: Document


@strawberry.type(name="OrderLine")
class OrderLineShown:
    line_id: str
    unit_price: MinorUnits
    gross: MinorUnits


@strawberry.type(name="DecidedCoupon", description="`shares` are those of the decision's lines, in their order.")
class DecidedCouponShown:
    code: str | None
    campaign_id: str
    version: int
    discount: MinorUnits
    shares: list[MinorUnits]


@strawberry.type(name="Burn", description="Credit that was spent out of a lot.")
class BurnShown:
    lot_no: int
    amount: MinorUnits


@strawberry.type(name="DecidedCredit")
class DecidedCreditShown:
    requested: MinorUnits
    applied: MinorUnits
    shortfall: MinorUnits
    shares: list[MinorUnits]
    burned: list[BurnShown]


@strawberry.type(name="DecidedEarning")
class DecidedEarningShown:
    campaign_id: str
    version: int
    amount: MinorUnits
    shares: list[MinorUnits]
    valid_days: int | None
    reissue_days: int


@strawberry.type(name="Refusal", description="An incentive that was not given, and why.")
class RefusalShown:
    code: str | None
    campaign_id: str | None
    version: int | None
    reason: str
    because: str


@strawberry.type(name="Decision")
class DecisionShown:
    @shows(list[OrderLineShown])
    def lines(self: Any, info: Info[Any, Any]) -> Any:
        """Of the basket."""
        return asking_of(info).counted(self["lines"])

    coupons: list[DecidedCouponShown]
    credit: DecidedCreditShown
    earned: list[DecidedEarningShown]
    refusals: list[RefusalShown]


@strawberry.type(name="Worth", description="What an incentive was worth at the placing, and is on what was picked.")
class WorthShown:
    incentive: str
    placed: MinorUnits
    picked: MinorUnits
    because: str | None


@strawberry.type(name="FinalBasket", description="What became of an estimated order's decision.")
class FinalBasketShown(DecisionShown):
    worth: list[WorthShown]
    all_reversed: bool = strawberry.field(description="Everything had been reversed before it came.")


@strawberry.type(name="TermsUsed", description="A version of a campaign's terms that the decision names.")
class TermsUsedShown:
    campaign_id: str
    version: int
    loaded_at: Time
    terms: Document


@strawberry.type(name="LineProgress", description="How much of a line's gross value was taken back.")
class LineProgressShown:
    line_id: str
    undelivered: MinorUnits
    refunded_undelivered: MinorUnits
    returned: MinorUnits
    reversed_value: MinorUnits


@strawberry.type(name="CampaignAmount")
class CampaignAmountShown:
    campaign_id: str
    amount: MinorUnits


@strawberry.type(name="ReversedSoFar")
class ReversedShown:
    coupons: list[CampaignAmountShown]
    credit: MinorUnits
    earned: list[CampaignAmountShown]


@strawberry.type(name="Vested")
class VestedShown:
    campaign_id: str
    lot_no: int | None
    reversed_before: MinorUnits
    clawed_back: MinorUnits


@strawberry.type(name="Progress", description="What became of the order since its placing.")
class ProgressShown:
    fully_refunded: bool
    cancelled: bool
    delivered_at: Time | None

    @shows(list[LineProgressShown])
    def lines(self: Any, info: Info[Any, Any]) -> Any:
        """Of the basket that counts."""
        return asking_of(info).counted(self["lines"])

    reversed: ReversedShown
    vested: list[VestedShown]


@strawberry.type(name="OrderTransfer", description="A transfer that the order brought, as the ledger keeps it.")
class OrderTransferShown:
    transfer_id: Long
    kind: str
    debit_account: str
    credit_account: str
    currency: str
    amount: MinorUnits
    lot_no: int | None
    cause: str
    happened_at: Time
    booked_at: Time
    trace_id: str | None


@strawberry.type(name="OrderLot", description="A lot that the order brought into the wallet.")
class OrderLotShown:
    lot_no: int
    campaign_id: str
    amount: MinorUnits
    remaining: MinorUnits
    expires_at: Time | None
    cause: str
    created_at: Time
    reissued_from: int | None


@strawberry.type(name="Redemption")
class RedemptionShown:
    campaign_id: str
    discount: MinorUnits
    redeemed_at: Time
    released_at: Time | None


@strawberry.type(name="Outcome", description="What was told of a fact. `body` is the CloudEvent as it is published.")
class OutcomeShown:
    sequence: int
    type: str
    fact: str
    created_at: Time
    body: str
    unpublished: list[str]


@strawberry.type(name="Resolution", description="What somebody said of an anomaly before it was exceeded further.")
class ResolutionShown:
    noticed_at: Time
    resolved_at: Time
    resolved_by: str
    resolution: str


@strawberry.type(name="Anomaly", description="Something odd about an order that wants a person's look.")
class AnomalyShown:
    order_id: str
    reason: str
    subject: str
    noticed_at: Time
    resolved_at: Time | None
    resolved_by: str | None
    resolution: str | None
    earlier: list[ResolutionShown]

    @shows("OrderShown | None")
    async def order(self, info: Info[Any, Any]) -> Any:
        """The order."""
        return await asking_of(info).load(orders_of, self.order_id)


@strawberry.type(name="Order", description="An order; of one that was never placed the facts that wait.")
class OrderShown:
    order_id: str
    customer_id: str | None
    currency: str | None
    standing: MinorUnits = strawberry.field(description="What stands on the order: coupons and credit.")
    facts: list[FactShown]
    decision: DecisionShown | None
    final_basket: FinalBasketShown | None
    terms: list[TermsUsedShown]
    progress: ProgressShown | None
    redemptions: list[RedemptionShown]
    anomalies: list[AnomalyShown]

    @shows(list[OrderTransferShown])
    def transfers(self, info: Info[Any, Any]) -> Any:
        """All of them, in the order in which they were booked."""
        return asking_of(info).counted(self.transfers)

    @shows(list[OrderLotShown])
    def lots(self, info: Info[Any, Any]) -> Any:
        """That the order brought."""
        return asking_of(info).counted(self.lots)

    @shows(list[OutcomeShown])
    def outcomes(self, info: Info[Any, Any]) -> Any:
        """What was told of it."""
        return asking_of(info).counted(self.outcomes)


def orders_of(asking: Asking, order_ids: Sequence[str]) -> dict[str, OrderHistory]:
    """The orders, read at once. Raises Refused (answer-too-large) for more than an answer bears: each has all its facts."""
    if len(order_ids) > ORDERS_MAX:
        raise Refused("answer-too-large", f"{len(order_ids)} orders at once: at most {ORDERS_MAX} are read")
    return order_histories(asking.reader(Work.READ), order_ids)
