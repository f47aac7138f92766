"""The data of the events in (rules 2.1): frozen pydantic models with every bound that one event can be checked for.

Unknown fields are ignored. The order of fields is the order in the canonical JSON, so it must not change within a
version of a type. The models never read bytes (codec.py does), and know nothing of other events: what a refund of
more than was bought means is for the rules to say, so these bounds are only as tight as storage
asks: a refund's `amount` goes up to 10^15 (no order's gross is more), a refunded or undelivered `quantity` up to 10^9
(times the highest unit price that is 10^18, within Postgres' bigint), and their lists have up to 10,000 entries (five
for every line that an order can have). Sums over several entries can leave bigint; add up in Python and cap before
storing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.functional_validators import AfterValidator
from pydantic_core import PydanticCustomError

from incentive_fleet.errors import Malformed
from incentive_fleet.events.currencies import MINOR_DIGITS
from incentive_fleet.events.reasons import Reason
from incentive_fleet.events.times import RFC3339_PATTERN, check_time, parse_time

GOODS: Final = "goods"
TEXT_LENGTH_MAX: Final = 200  # code points, rules 2.1
LINES_MAX: Final = 2_000  # of an order, rules 2.1
COUPONS_MAX: Final = 20  # rules 2.1
LINE_QUANTITY_MAX: Final = 1_000_000  # rules 2.1
UNIT_PRICE_MAX: Final = 10**9  # minor units, rules 2.1
CREDIT_REQUESTED_MAX: Final = 10**12  # minor units, rules 2.1
GROSS_MAX: Final = 10**15  # minor units, rules 2.1
REFUND_AMOUNT_MAX: Final = GROSS_MAX  # ours, see above
REFUND_QUANTITY_MAX: Final = 10**9  # ours, see above
REFUND_LINES_MAX: Final = 10_000  # ours, see above

# Category Cc of Unicode is exactly these two ranges, and will stay so: the category is closed by the standard's
# stability policy. Written as a class so that pydantic, JSON Schema and Python read it alike.
NO_CONTROL_PATTERN: Final = r"^[^\x00-\x1f\x7f-\x9f]*$"

WIRE: Final = ConfigDict(frozen=True, strict=True, extra="ignore")


def _utc(value: object) -> object:
    try:
        if isinstance(value, str):
            return parse_time(value)
        return check_time(value) if isinstance(value, datetime) else value
    except Malformed as refusal:
        raise PydanticCustomError(refusal.reason, "{detail}", {"detail": refusal.detail}) from None


def _known(code: str) -> str:
    if code not in MINOR_DIGITS:
        raise PydanticCustomError(Reason.UNKNOWN_CURRENCY.value, "an ISO 4217 code with minor units is needed")
    return code


Text = Annotated[str, Field(min_length=1, max_length=TEXT_LENGTH_MAX, pattern=NO_CONTROL_PATTERN)]
UtcTime = Annotated[
    datetime,
    BeforeValidator(_utc),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": RFC3339_PATTERN}),
]
Currency = Annotated[str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": sorted(MINOR_DIGITS)})]


# What came after the first release and says what its absence says is kept as absent: so it stays out of the digest.
LineKind = Annotated[
    Literal["goods", "fee", "deposit", "tip"] | None, AfterValidator(lambda kind: None if kind == GOODS else kind)
]
Yes = Annotated[bool | None, AfterValidator(lambda value: value or None)]


class Line(BaseModel):
    """A line of a basket; its gross is quantity * unit_price minor units."""

    model_config = WIRE

    line_id: Text
    sku: Text
    category: Text | None = None
    quantity: int = Field(ge=1, le=LINE_QUANTITY_MAX)
    unit_price: int = Field(ge=0, le=UNIT_PRICE_MAX)  # minor units
    kind: LineKind = None  # absent: goods


def _fit_together(lines: tuple[Line, ...]) -> tuple[Line, ...]:
    seen: set[str] = set()
    gross = 0
    for line in lines:
        if line.line_id in seen:
            raise PydanticCustomError(
                Reason.REPEATED_LINE.value, "{detail}", {"detail": f"line_id {line.line_id!r} comes twice"}
            )
        seen.add(line.line_id)
        gross += line.quantity * line.unit_price
    if gross > GROSS_MAX:
        raise PydanticCustomError(
            Reason.GROSS_TOO_LARGE.value, "{detail}", {"detail": f"the gross is {gross}, more than {GROSS_MAX}"}
        )
    return lines


# A JSON array arrives as a list, which a strict tuple refuses: the containers alone are lax, their items stay strict.
# They stop at the first bad item, so that a long list of bad ones costs no more than one.
Lines = Annotated[
    tuple[Line, ...],
    Field(strict=False, min_length=1, max_length=LINES_MAX, fail_fast=True),
    AfterValidator(_fit_together),
]
FinalLines = Annotated[
    tuple[Line, ...], Field(strict=False, max_length=LINES_MAX, fail_fast=True), AfterValidator(_fit_together)
]
Coupons = Annotated[tuple[Text, ...], Field(strict=False, max_length=COUPONS_MAX, fail_fast=True)]


class OrderPlaced(BaseModel):
    """An order was placed (`order-placed.v1`)."""

    model_config = WIRE

    order_id: Text
    customer_id: Text
    currency: Currency
    placed_at: UtcTime
    lines: Lines
    coupons: Coupons = ()
    credit_requested: int = Field(default=0, ge=0, le=CREDIT_REQUESTED_MAX)  # minor units
    estimated: Yes = None  # a final basket will follow


class OrderFinalized(BaseModel):
    """The whole basket of an estimated order as it was picked, never a difference (`order-finalized.v1`)."""

    model_config = WIRE

    order_id: Text
    finalized_at: UtcTime
    lines: FinalLines


class OrderCancelled(BaseModel):
    """An order was cancelled (`order-cancelled.v1`)."""

    model_config = WIRE

    order_id: Text
    cancelled_at: UtcTime
    reason: Text | None = None


class RefundLine(BaseModel):
    """Part of a refund: so many units, or so much gross value (minor units, before incentives), of one line."""

    model_config = ConfigDict(
        **WIRE, json_schema_extra={"oneOf": [{"required": ["quantity"]}, {"required": ["amount"]}]}
    )

    line_id: Text
    quantity: int | None = Field(default=None, ge=1, le=REFUND_QUANTITY_MAX)
    amount: int | None = Field(default=None, ge=1, le=REFUND_AMOUNT_MAX)
    reason: Literal["returned", "undelivered", "goodwill"] = "returned"

    @model_validator(mode="after")
    def _one_measure(self) -> RefundLine:
        if (self.quantity is None) == (self.amount is None):
            raise PydanticCustomError(Reason.QUANTITY_OR_AMOUNT.value, "exactly one of quantity and amount is needed")
        return self


RefundLines = Annotated[
    tuple[RefundLine, ...], Field(strict=False, min_length=1, max_length=REFUND_LINES_MAX), Field(fail_fast=True)
]


class OrderRefunded(BaseModel):
    """An order was refunded (`order-refunded.v1`); without `lines` everything in it was."""

    model_config = WIRE

    refund_id: Text
    order_id: Text
    currency: Currency
    refunded_at: UtcTime
    lines: RefundLines | None = None


class UndeliveredLine(BaseModel):
    """Units of a line that a delivery did not bring."""

    model_config = WIRE

    line_id: Text
    quantity: int = Field(ge=1, le=REFUND_QUANTITY_MAX)


UndeliveredLines = Annotated[
    tuple[UndeliveredLine, ...], Field(strict=False, max_length=REFUND_LINES_MAX), Field(fail_fast=True)
]


class DeliveryCompleted(BaseModel):
    """An order was delivered (`delivery-completed.v1`)."""

    model_config = WIRE

    delivery_id: Text
    order_id: Text
    delivered_at: UtcTime
    promised_by: UtcTime | None = None
    undelivered: UndeliveredLines = ()


class CreditGrantRequested(BaseModel):
    """Somebody asks for credit for a customer (`credit-grant-requested.v1`)."""

    model_config = WIRE

    grant_key: Text
    customer_id: Text
    currency: Currency
    amount: int = Field(ge=1, le=CREDIT_REQUESTED_MAX)  # minor units
    campaign_id: Text
    requested_at: UtcTime
    expires_at: UtcTime | None = None
    reason: Text | None = None


class QuoteRequested(BaseModel):
    """A question without effect: what would a placing get that took effect next (`incentives-quote-requested.v1`)?"""

    model_config = WIRE

    quote_id: Text
    customer_id: Text
    currency: Currency
    at: UtcTime
    lines: Lines
    coupons: Coupons = ()
    credit_requested: int = Field(default=0, ge=0, le=CREDIT_REQUESTED_MAX)  # minor units


OrderFact = OrderPlaced | OrderFinalized | OrderCancelled | OrderRefunded | DeliveryCompleted
EventData = OrderFact | CreditGrantRequested

TYPES: Final[dict[str, type[EventData]]] = {
    "order-placed.v1": OrderPlaced,
    "order-finalized.v1": OrderFinalized,
    "order-cancelled.v1": OrderCancelled,
    "order-refunded.v1": OrderRefunded,
    "delivery-completed.v1": DeliveryCompleted,
    "credit-grant-requested.v1": CreditGrantRequested,
}
QUOTE_TYPE: Final = "incentives-quote-requested.v1"  # of a queue of its own: no fact
TYPE_OF: Final[dict[type[BaseModel], str]] = {model: type_ for type_, model in TYPES.items()}


def subject_of(data: EventData) -> str:
    """The `subject` that an event with this data has: the order id, or the grant key."""
    return data.grant_key if isinstance(data, CreditGrantRequested) else data.order_id
