"""Builders in the words of the domain: events with sensible defaults, campaign terms, and a world without a database.

`World` runs the real rules on an in-memory working set, as a batch does between its reads and its writes; decisions and
running totals go through their stored form after every fact, so that nothing can lean on what is not kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from incentive_fleet.events.codec import Event, decode, encode_event
from incentive_fleet.events.models import (
    CreditGrantRequested,
    DeliveryCompleted,
    EventData,
    OrderCancelled,
    OrderFinalized,
    OrderPlaced,
    OrderRefunded,
    subject_of,
)
from incentive_fleet.incentives.accounts import Kind
from incentive_fleet.incentives.booking import Book, Cause, LotTerms, Posting, expire, open_lot, take_back_grant
from incentive_fleet.incentives.campaign_file import CampaignFile, credit_from_terms, parse_campaigns
from incentive_fleet.incentives.campaigns import CampaignSet, CreditTerms
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.running_totals import Progress, RunningTotals
from incentive_fleet.incentives.wallet import Lot, Wallet
from incentive_fleet.ledger.batch import Known, Verdict, decide
from incentive_fleet.ledger.working_set import Order, WorkingSet

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)


def day(number: float) -> datetime:
    """Noon of the first day, so many days later."""
    return NOON + timedelta(days=number)


def text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def line(
    line_id: str = "a", quantity: int = 1, unit_price: int = 1_000, category: str | None = None, kind: str | None = None
) -> dict[str, Any]:
    known = {"line_id": line_id, "sku": f"sku-{line_id}", "quantity": quantity, "unit_price": unit_price}
    return known | {name: text for name, text in (("category", category), ("kind", kind)) if text is not None}


def placed(
    order: str = "o1",
    *lines: dict[str, Any],
    customer: str = "ann",
    currency: str = "EUR",
    at: datetime = NOON,
    coupons: Sequence[str] = (),
    credit: int = 0,
) -> OrderPlaced:
    return OrderPlaced.model_validate(
        {
            "order_id": order,
            "customer_id": customer,
            "currency": currency,
            "placed_at": text(at),
            "lines": list(lines or (line(),)),
            "coupons": list(coupons),
            "credit_requested": credit,
        }
    )


def back(
    line_id: str = "a", *, quantity: int | None = None, amount: int | None = None, reason: str = "returned"
) -> Any:
    """A line of a refund: so many units, or so much gross value; one unit unless told."""
    measure = {"amount": amount} if amount is not None else {"quantity": quantity or 1}
    return {"line_id": line_id, "reason": reason} | measure


def refunded(
    refund: str = "r1", *lines: dict[str, Any], order: str = "o1", currency: str = "EUR", at: datetime | None = None
) -> OrderRefunded:
    """A refund of these lines, or of everything when none is given; two days after the first noon unless told."""
    data = {"refund_id": refund, "order_id": order, "currency": currency, "refunded_at": text(at or day(2))}
    return OrderRefunded.model_validate(data | ({"lines": list(lines)} if lines else {}))


def estimated(placing: OrderPlaced) -> OrderPlaced:
    """The same placing, of a basket that a final one will follow."""
    return placing.model_copy(update={"estimated": True})


def finalized(order: str = "o1", *lines: dict[str, Any], at: datetime | None = None) -> OrderFinalized:
    """A final basket of these lines, which may be none; half a day after the first noon unless told."""
    return OrderFinalized.model_validate(
        {"order_id": order, "finalized_at": text(at or day(0.5)), "lines": list(lines)}
    )


def cancelled(order: str = "o1", *, at: datetime | None = None) -> OrderCancelled:
    """A cancelling, half a day after the first noon unless told."""
    return OrderCancelled.model_validate({"order_id": order, "cancelled_at": text(at or day(0.5))})


def asked(
    key: str, amount: int, *, customer: str = "ann", campaign: str = "gift", at: datetime | None = None
) -> CreditGrantRequested:
    """A grant that somebody asks for by event, in EUR and for ever; at the first noon unless told."""
    return CreditGrantRequested.model_validate(
        {
            "grant_key": key,
            "customer_id": customer,
            "currency": "EUR",
            "amount": amount,
            "campaign_id": campaign,
            "requested_at": text(at or NOON),
        }
    )


def delivered(
    order: str = "o1",
    *,
    at: datetime | None = None,
    promised: datetime | None = None,
    missing: dict[str, int] | None = None,
) -> DeliveryCompleted:
    """A delivery, a day after the first noon unless told; `missing` are undelivered units by line."""
    data: dict[str, Any] = {"delivery_id": f"d-{order}", "order_id": order, "delivered_at": text(at or day(1))}
    if promised is not None:
        data["promised_by"] = text(promised)
    if missing:
        data["undelivered"] = [{"line_id": name, "quantity": units} for name, units in missing.items()]
    return DeliveryCompleted.model_validate(data)


def event(data: EventData, id: str | None = None, source: str = "/shop") -> Event:
    """The event that carries the data; its id is made from the fact's identity unless told."""
    if id is None:
        id = f"{subject_of(data)}/{getattr(data, 'refund_id', type(data).__name__)}"
    return decode(encode_event(source, id, data, NOON))


def toml(value: object) -> str:
    """A value as TOML writes it in one line."""
    match value:
        case dict():
            return "{ " + ", ".join(f"{name} = {toml(part)}" for name, part in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def terms(kind: str, id: str, **keys: Any) -> str:
    """A [[campaign]] table; in EUR and open for years unless told."""
    values = {
        "id": id,
        "kind": kind,
        "currency": "EUR",
        "starts_at": "2020-01-01T00:00:00Z",
        "ends_at": "2030-01-01T00:00:00Z",
    }
    values |= {name: text(value) if isinstance(value, datetime) else value for name, value in keys.items()}
    rows = (f"{name} = {value if name in ('starts_at', 'ends_at') else toml(value)}" for name, value in values.items())
    return "\n[[campaign]]\n" + "\n".join(rows) + "\n"


def set_of(file: CampaignFile) -> CampaignSet:
    """The terms of a file, as they would be read back once it is loaded."""
    credit = CreditTerms() if file.credit is None else credit_from_terms(file.credit, 1)
    return CampaignSet.of([campaign for campaign, _ in file.campaigns], credit)


@cache
def campaigns(*tables: str) -> CampaignSet:
    """The terms of these tables; read once, for nothing changes them."""
    return set_of(parse_campaigns("".join(tables)))


def fold(postings: Iterable[Posting]) -> dict[str, int]:
    """Non-zero balances by account, positive on the normal side, worked out from the transfers alone (rules 3.1)."""
    balances: Counter[str] = Counter()
    for posting in postings:
        for account, debited in ((posting.debit_account, posting.amount), (posting.credit_account, -posting.amount)):
            balances[account] += debited if account.startswith(("campaign:", "debt:")) else -debited
    return {account: balance for account, balance in sorted(balances.items()) if balance}


def _stored_and_read(progress: Progress) -> Progress:
    """As the ledger would give it back for the order's next fact."""
    placed, final = (
        one and Decision.from_json(one.customer_id, one.currency, json.loads(one.to_json()))
        for one in (progress.placed, progress.final)
    )
    assert placed is not None
    totals = RunningTotals.from_json(json.loads(progress.totals.to_json()), len((final or placed).line_ids))
    return Progress(placed, totals, final)


class World:
    """One currency's campaigns, wallets and orders in memory."""

    def __init__(self, *tables: str) -> None:
        self.campaigns = campaigns(*tables) if tables else CampaignSet()
        self.working = WorkingSet()
        self.known = Known({}, {})

    @property
    def postings(self) -> list[Posting]:
        return self.working.writes.postings

    @property
    def balances(self) -> dict[str, int]:
        return fold(self.postings)

    def balance(self, account: str) -> int:
        return self.balances.get(account, 0)

    def kinds(self, order: str = "o1") -> list[tuple[str, int]]:
        """The kinds and amounts posted for an order, in order."""
        return [(posting.kind, posting.amount) for posting in self.postings if posting.order_id == order]

    def wallet(self, customer: str = "ann") -> Wallet:
        return self.working.wallets.setdefault((customer, "EUR"), Wallet(customer, "EUR"))

    def lots(self, customer: str = "ann") -> list[tuple[int, int]]:
        """(lot_no, remaining) of the lots that hold something, oldest first."""
        lots = sorted(self.wallet(customer).lots.values(), key=lambda lot: lot.lot_no)
        return [(lot.lot_no, lot.remaining) for lot in lots if lot.remaining]

    def decision(self, order: str = "o1") -> Decision:
        progress = self.working.orders[order].progress
        assert progress is not None
        return progress.counts

    def outcome(self, order: str = "o1") -> dict[str, Any]:
        """The data of the order's last outcome."""
        body = [outcome.body for outcome in self.working.writes.outcomes if outcome.order_id == order][-1]
        data: dict[str, Any] = json.loads(body)["data"]
        return data

    def give(
        self,
        amount: int,
        *,
        customer: str = "ann",
        campaign: str = "gift",
        until: datetime | None = None,
        reissue: int = 30,
        at: datetime | None = None,
    ) -> Lot:
        """A grant, as ledger/grants books it; a day before the first noon unless told."""
        book = self._book(Cause(f"grant:{len(self.postings)}", at or day(-1), None), customer)
        return open_lot(book, Kind.GRANT, amount, LotTerms(campaign, until, reissue))

    def take_back(self, lot: Lot, customer: str = "ann", at: datetime | None = None) -> int:
        return take_back_grant(self._book(Cause("grant-reversal:x", at or day(9), None), customer), lot.lot_no)

    def sweep(self, due: datetime) -> int:
        """An expiry run without grace; the minor units that it moved."""
        cause = Cause("expiry", due, None)
        wallets = list(self.working.wallets)
        return sum(one.data["amount"] for customer, _ in wallets for one in expire(self._book(cause, customer), due))

    def _book(self, cause: Cause, customer: str) -> Book:
        return Book(cause, self.wallet(customer), self.working.usage, self.postings)

    def take(self, *facts: EventData) -> list[Verdict]:
        """Facts as they arrive, repeats included; what became of each."""
        return [self._take(event(data)) for data in facts]

    def _take(self, arrived: Event) -> Verdict:
        order = self.working.orders.setdefault(arrived.order_id, Order())
        if isinstance(arrived.data, OrderPlaced | CreditGrantRequested):
            self.wallet(arrived.data.customer_id)
        [verdict] = decide([arrived], self.known, self.working, self.campaigns)
        if order.progress is not None:
            order.progress = _stored_and_read(order.progress)
        return verdict

    def assert_sound(self) -> None:
        """What must be true after any history."""
        balances = self.balances
        assert not [name for name, balance in balances.items() if balance < 0 and not name.startswith("campaign:")]
        for (customer, _), wallet in self.working.wallets.items():
            assert wallet.balance == balances.get(f"wallet:{customer}", 0) == sum(dict(self.lots(customer)).values())
            assert wallet.debt == balances.get(f"debt:{customer}", 0)
            assert not (wallet.balance and wallet.debt), "a wallet beside a debt"
            assert all(0 <= lot.remaining <= lot.amount for lot in wallet.lots.values())
        spent = {name.removeprefix("campaign:"): balance for name, balance in balances.items() if "campaign:" in name}
        assert {name: value for name, value in self.working.usage.spent.items() if value and name != "gift"} == {
            name: value for name, value in spent.items() if name != "gift"
        }
