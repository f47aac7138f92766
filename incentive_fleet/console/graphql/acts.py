"""What may be done through the API: credit granted and taken back, anomalies resolved. Each in the visitor's name."""

from __future__ import annotations

from typing import Any

import strawberry
from strawberry.types import Info

from incentive_fleet.console.graphql.orders import AnomalyShown
from incentive_fleet.console.graphql.reading import asking_of
from incentive_fleet.console.graphql.scalars import MinorUnits, Time, shows
from incentive_fleet.console.visitors import Work
from incentive_fleet.errors import Refused
from incentive_fleet.events.times import format_time
from incentive_fleet.ledger.anomalies import AnomalyKey
from incentive_fleet.ledger.anomalies import resolve_anomaly as resolve
from incentive_fleet.ledger.csv_rows import require_text
from incentive_fleet.ledger.grant_file import grant_of
from incentive_fleet.ledger.grants import grant as hand_out
from incentive_fleet.ledger.grants import reverse_grant as take_back


@strawberry.input(name="GrantInput", description="Credit for a customer under a campaign of kind grant.")
class GrantAsked:
    key: str = strawberry.field(description="Idempotency key: the same key and grant again has no effect.")
    customer_id: str
    currency: str
    amount: MinorUnits
    campaign_id: str
    expires_at: Time | None = strawberry.field(default=None, description="Null: never.")


@strawberry.type(name="GrantResult")
class GrantResultShown:
    key: str
    result: str = strawberry.field(description="granted, or already-granted")


@strawberry.type(name="GrantReversal")
class GrantReversalShown:
    key: str
    returned: MinorUnits
    spent: MinorUnits = strawberry.field(description="Of the grant, by orders, debts or expiry: reported, not owed.")
    again: bool = strawberry.field(description="It had been taken back before.")


@strawberry.type(name="Mutation", description="By POST alone; one after the other.")
class MutationShown:
    @shows(GrantResultShown)
    def grant(self, info: Info[Any, Any], input: GrantAsked) -> Any:
        """Hand out credit. Safe to repeat with the same key."""
        asking = asking_of(info)
        asking.visitor.require(Work.BOOK)
        until: Any = input.expires_at
        one = grant_of(
            input.key,
            input.customer_id,
            input.currency,
            str(input.amount),
            input.campaign_id,
            format_time(until) if until else "",
        )
        with asking.premises.connections.session(Work.BOOK, asking.visitor, asking.left_s()) as session:
            result = hand_out(session, [one], asking.now, asking.visitor.name)[0]
        if isinstance(result, Refused):
            raise result
        return {"key": one.key, "result": result.value}

    @shows(GrantReversalShown)
    def reverse_grant(self, info: Info[Any, Any], key: str, reason: str) -> Any:
        """Take a grant back: what is left of it returns to the campaign. Safe to repeat."""
        asking = asking_of(info)
        asking.visitor.require(Work.BOOK)
        require_text("key", key)
        with asking.premises.connections.session(Work.BOOK, asking.visitor, asking.left_s()) as session:
            return take_back(session, key, reason, asking.now, asking.visitor.name)

    @shows(AnomalyShown)
    def resolve_anomaly(self, info: Info[Any, Any], order_id: str, reason: str, subject: str, note: str) -> Any:
        """Note that you looked at it and what came of it."""
        asking = asking_of(info)
        connections = asking.premises.connections
        with connections.to(Work.BOOK, asking.visitor, asking.left_s()) as connection:
            key = AnomalyKey(order_id, reason, subject)
            return resolve(connection, key, asking.visitor.name, note, asking.now)
