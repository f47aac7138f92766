"""A quote: what a placing would get that took effect next. It goes through the codec and the core, as one from a queue does."""

from __future__ import annotations

from typing import Any, Final

import strawberry
from pydantic_core import to_json
from strawberry.types import Info

from incentive_fleet.console.graphql.reading import asking_of
from incentive_fleet.console.graphql.scalars import Long, MinorUnits, Time
from incentive_fleet.console.visitors import Work
from incentive_fleet.events.codec import decode_quote
from incentive_fleet.events.models import QUOTE_TYPE
from incentive_fleet.events.times import format_time
from incentive_fleet.ledger.quoting import quote as quoted

SOURCE: Final = "/graphql"


@strawberry.input(name="QuoteLine")
class QuoteLineAsked:
    line_id: str
    sku: str
    quantity: Long
    unit_price: MinorUnits
    category: str | None = strawberry.UNSET
    kind: str | None = strawberry.UNSET


@strawberry.input(name="QuoteRequest", description="As `incentives-quote-requested.v1` has it.")
class QuoteAsked:
    quote_id: str
    customer_id: str
    currency: str
    at: Time
    lines: list[QuoteLineAsked]
    coupons: list[str] | None = strawberry.UNSET
    credit_requested: MinorUnits | None = strawberry.UNSET


@strawberry.type(name="QuotedCoupon")
class QuotedCouponShown:
    code: str | None = strawberry.field(description="Null: an automatic coupon.")
    campaign_id: str | None
    discount: MinorUnits
    refusal: str | None


@strawberry.type(name="QuotedCredit")
class QuotedCreditShown:
    requested: MinorUnits
    applied: MinorUnits
    shortfall: MinorUnits
    refusal: str | None


@strawberry.type(name="QuotedEarning")
class QuotedEarningShown:
    campaign_id: str | None
    amount: MinorUnits
    refusal: str | None


@strawberry.type(name="QuotedLine")
class QuotedLineShown:
    line_id: str
    gross: MinorUnits
    discount: MinorUnits
    credit: MinorUnits
    payable: MinorUnits


@strawberry.type(name="Quote", description="It writes nothing and promises nothing: what is booked first decides.")
class QuoteShown:
    quote_id: str
    customer_id: str
    currency: str
    as_of: Time
    coupons: list[QuotedCouponShown]
    credit: QuotedCreditShown
    earned: list[QuotedEarningShown]
    lines: list[QuotedLineShown]
    money_due_back: MinorUnits
    wallet_balance: MinorUnits = strawberry.field(description="As it stands, the quoted credit still in it.")
    debt: MinorUnits


def quote(info: Info[Any, Any], request: QuoteAsked) -> Any:
    """What a placing of that basket at that time would get."""
    asking = asking_of(info)
    asking.visitor.require(Work.QUOTE)
    wanted, *_ = decode_quote(_as_event(request))
    with asking.premises.connections.session(Work.QUOTE, asking.visitor, asking.left_s()) as session:
        return quoted(session, wanted)


def _as_event(request: QuoteAsked) -> bytes:
    at: Any = request.at
    data = _given(request) | {"at": format_time(at), "lines": [_given(line) for line in request.lines]}
    envelope = {
        "specversion": "1.0",
        "id": request.quote_id,
        "source": SOURCE,
        "type": QUOTE_TYPE,
        "time": data["at"],
        "subject": request.quote_id,
        "datacontenttype": "application/json",
    }
    return to_json(envelope | {"data": data})


def _given(one: QuoteAsked | QuoteLineAsked) -> dict[str, Any]:
    """The members that were given; null is taken for not given, as GraphQL has it."""
    return {name: value for name, value in vars(one).items() if value is not strawberry.UNSET and value is not None}
