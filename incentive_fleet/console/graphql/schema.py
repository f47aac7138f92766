"""The schema: every question and act, built once. `docs/graphql/schema.graphql` is its export."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import strawberry
from graphql import GraphQLField, GraphQLObjectType, GraphQLSchema
from strawberry.types import Info

from incentive_fleet.console.graphql import attention, quotes
from incentive_fleet.console.graphql import campaigns as of_campaigns
from incentive_fleet.console.graphql import dead_letters as of_letters
from incentive_fleet.console.graphql import wallets as of_wallets
from incentive_fleet.console.graphql.acts import MutationShown
from incentive_fleet.console.graphql.cursors import PageOf
from incentive_fleet.console.graphql.executing import mark_plain
from incentive_fleet.console.graphql.orders import AnomalyShown, OrderShown, orders_of
from incentive_fleet.console.graphql.reading import asking_of
from incentive_fleet.console.graphql.scalars import CONFIG, member


async def _order(info: Info[Any, Any], order_id: str) -> Any:
    """By its id; null when no fact of it ever came."""
    return await asking_of(info).load(orders_of, order_id)


@strawberry.type(name="Query", description="Everything is read at one moment; amounts are minor units, times UTC.")
class QueryShown:
    wallet = strawberry.field(resolver=of_wallets.wallet, graphql_type=of_wallets.WalletShown | None)
    wallets = strawberry.field(resolver=of_wallets.wallets, graphql_type=list[of_wallets.WalletShown])
    why_balance = strawberry.field(
        resolver=of_wallets.wallet,
        graphql_type=of_wallets.WhyBalanceShown | None,
        description="How the customer's balance in that currency came to be; null when there is no such wallet.",
    )
    order = strawberry.field(resolver=_order, graphql_type=OrderShown | None)
    campaign = strawberry.field(resolver=of_campaigns.campaign, graphql_type=of_campaigns.CampaignShown | None)
    campaigns = strawberry.field(resolver=of_campaigns.campaigns, graphql_type=PageOf[of_campaigns.CampaignShown])
    quote = strawberry.field(resolver=quotes.quote, graphql_type=quotes.QuoteShown)
    waiting = strawberry.field(resolver=attention.waiting, graphql_type=PageOf[attention.WaitingFactShown])
    anomalies = strawberry.field(resolver=attention.anomalies, graphql_type=PageOf[AnomalyShown])
    dead_letter_groups = strawberry.field(
        resolver=of_letters.dead_letter_groups, graphql_type=list[of_letters.DeadLetterGroupShown]
    )
    dead_letters = strawberry.field(resolver=of_letters.dead_letters, graphql_type=PageOf[of_letters.DeadLetterShown])
    dead_letter = strawberry.field(resolver=of_letters.dead_letter, graphql_type=of_letters.DeadLetterShown | None)
    dead_letter_acts = strawberry.field(resolver=of_letters.dead_letter_acts, graphql_type=PageOf[of_letters.ActShown])
    dead_letter_runs = strawberry.field(resolver=of_letters.dead_letter_runs, graphql_type=PageOf[of_letters.RunShown])


EXPORT: Final = Path("docs/graphql/schema.graphql")


def executable() -> GraphQLSchema:
    """The schema as graphql-core runs it, built anew; fields without a resolver are read by their names, without a detour."""
    schema: GraphQLSchema = _built()._schema
    for field in _fields(schema):
        definition = field.extensions["strawberry-definition"]
        if definition.is_basic_field:
            field.resolve = _reading(definition.python_name)
            mark_plain(field, definition.python_name)
    return schema


def exported() -> str:
    """The schema in GraphQL's own language."""
    return _built().as_str().rstrip("\n") + "\n"


def _built() -> strawberry.Schema:
    schema = strawberry.Schema(query=QueryShown, mutation=MutationShown, config=CONFIG)
    for field in _fields(schema._schema):
        resolver = field.extensions["strawberry-definition"].base_resolver
        if resolver is not None and field.description is None:
            field.description = inspect.getdoc(resolver.wrapped_func)
    return schema


def _fields(schema: GraphQLSchema) -> Iterator[GraphQLField]:
    for type_ in schema.type_map.values():
        if isinstance(type_, GraphQLObjectType) and not type_.name.startswith("__"):
            yield from type_.fields.values()


def _reading(name: str) -> Callable[[Any, Any], Any]:
    return lambda source, _info: member(source, name)
