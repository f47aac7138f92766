"""The API in GraphQL over HTTP: what it says of a ledger, to whom, in how many statements, and what it says when it cannot."""

from __future__ import annotations

import gc
import json
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest

from incentive_fleet.console.graphql import dead_letters
from incentive_fleet.console.visitors import OPERATOR, SUPPORT, VIEWER
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.events.models import QuoteRequested
from incentive_fleet.ledger.order_history import order_history
from incentive_fleet.ledger.quoting import quote
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.wallet_statement import wallet_lots, wallet_statement
from incentive_fleet.settings import Settings
from tests.console_world import program_at
from tests.dead_letter_world import LetterDatabase, arrival, order
from tests.domain import NOON, line, text
from tests.parts import fresh_database
from tests.small_world import ODD, give, play, rows


@pytest.fixture(scope="module")
def world(postgres: Postgres, database_template: str) -> Iterator[str]:
    """A database in which everything happened, which nothing here changes."""
    with fresh_database(postgres, database_template) as url:
        play(url)
        letters = LetterDatabase(url)
        letters.keep(*(arrival(order(n), name=f"copy-{n}") for n in range(1, 6)))
        first, second, *_ = letters.summaries()
        letters.discard(first.id)
        letters.edit(letters.letter(second.id), "data.currency=EUR")
        yield url


@pytest.fixture(scope="module")
def client(world: str) -> Iterator[httpx2.Client]:
    with program_at(Settings(database_url=world), OPERATOR) as client:
        yield client


def ask(client: httpx2.Client, query: str, **variables: Any) -> Any:
    """The data of an answer without errors."""
    answer = client.post("/graphql", json={"query": query, "variables": variables})
    document = answer.json()
    assert "errors" not in document, document["errors"]
    return document["data"]


def fault(
    client: httpx2.Client, query: str, *, headers: dict[str, str] | None = None, **variables: Any
) -> dict[str, Any]:
    """The first error of an answer."""
    answer = client.post("/graphql", json={"query": query, "variables": variables}, headers=headers)
    found: dict[str, Any] = answer.json()["errors"][0]
    return found


def code(client: httpx2.Client, query: str, *, headers: dict[str, str] | None = None, **variables: Any) -> str:
    return str(fault(client, query, headers=headers, **variables)["extensions"]["code"])


WALLET = """
    query ($customer: String!) { wallets(customerId: $customer) {
        customerId currency balance pending debt
        lots(all: true) { lotNo campaignId amount remaining expiresAt orderId cause createdAt reissuedFrom }
        transfers(first: 200) { edges { node {
            transferId kind amount walletChange pendingChange debtChange balanceAfter meaning orderId lotNo cause happenedAt
            bookedAt source eventId traceId } } }
    } }
"""


def snake(value: Any) -> Any:
    """A document of the API with the names of the command line's."""
    if isinstance(value, list):
        return [snake(one) for one in value]
    if isinstance(value, dict):
        if "edges" in value:
            return [snake(edge["node"]) for edge in value["edges"]]
        return {"".join(f"_{c.lower()}" if c.isupper() else c for c in name): snake(one) for name, one in value.items()}
    return value


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda one: {name: getattr(one, name) for name in one.__slots__}))


def test_a_wallet_is_what_the_command_line_says(client: httpx2.Client, world: str) -> None:
    for customer in ("ann", ODD, "bob"):
        with closing(Session(world)) as session:
            statement = wallet_statement(session.connection, customer, limit=200, all_lots=True)
        told = snake(ask(client, WALLET, customer=customer)["wallets"])
        assert told == [{"customer_id": customer} | plain(one) for one in statement.wallets]
    assert ask(client, WALLET, customer="nobody") == {"wallets": []}


DECIDED = """
        lines { lineId unitPrice gross } coupons { code campaignId version discount shares }
        credit { requested applied shortfall shares burned { lotNo amount } }
        earned { campaignId version amount shares validDays reissueDays }
        refusals { code campaignId version reason because }
"""
ORDER = (
    """
    query ($id: String!) { order(orderId: $id) {
        orderId customerId currency standing
        facts { fact source eventId digest traceId happenedAt recordedAt waitingSince data }
        decision { ...decided } finalBasket { ...final }
        terms { campaignId version loadedAt terms }
        progress { fullyRefunded cancelled deliveredAt
            lines { lineId undelivered refundedUndelivered returned reversedValue }
            reversed { coupons { campaignId amount } credit earned { campaignId amount } }
            vested { campaignId lotNo reversedBefore clawedBack } }
        transfers { transferId kind debitAccount creditAccount currency amount lotNo cause happenedAt bookedAt traceId }
        lots { lotNo campaignId amount remaining expiresAt cause createdAt reissuedFrom }
        redemptions { campaignId discount redeemedAt releasedAt }
        anomalies { orderId reason subject noticedAt resolvedAt resolvedBy resolution
            earlier { noticedAt resolvedAt resolvedBy resolution } }
        outcomes { sequence type fact createdAt body unpublished }
    } }
    fragment decided on Decision { """
    + DECIDED
    + "} fragment final on FinalBasket { worth { incentive placed picked because } allReversed"
    + DECIDED
    + "}"
)


def without(value: Any, *names: str) -> Any:
    if isinstance(value, list):
        return [without(one, *names) for one in value]
    if isinstance(value, dict):
        return {name: without(one, *names) for name, one in value.items() if name not in names}
    return value


@pytest.mark.parametrize("id", ["full", "picked", "odd", "never"])
def test_an_order_is_what_the_command_line_says(client: httpx2.Client, world: str, id: str) -> None:
    with closing(Session(world)) as session:
        history = order_history(session.connection, id)
    told = ask(client, ORDER, id=id)["order"]
    documents = "data", "terms"  # an event's and a campaign's own names, which stay as they are
    assert snake(without(told, *documents)) == without(plain(history), "traceparent", *documents)
    assert history is not None
    assert [fact["data"] for fact in told["facts"]] == [fact["data"] for fact in history.facts]


def test_the_statement_goes_on_behind_a_cursor(client: httpx2.Client, world: str) -> None:
    query = """query ($after: String) { wallet(customerId: "ann", currency: "EUR") {
        transfers(first: 3, after: $after) { edges { cursor node { transferId } } pageInfo { hasNextPage endCursor } } } }"""
    seen, after = [], None
    while True:
        page = ask(client, query, after=after)["wallet"]["transfers"]
        seen += [edge["node"]["transferId"] for edge in page["edges"]]
        assert page["pageInfo"]["endCursor"] == page["edges"][-1]["cursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    own = "customer_id = 'ann' AND currency = 'EUR' AND kind NOT IN ('coupon', 'coupon_reversal')"
    assert seen == [n for (n,) in rows(world, f"SELECT transfer_id FROM transfers WHERE {own} ORDER BY 1 DESC")]


LISTINGS = {
    "campaigns": "campaignId",
    "anomalies": "orderId reason subject",
    "waiting": "orderId fact",
    "deadLetters": "id",
    "deadLetterActs": "actId",
    "deadLetterRuns": "run",
}


@pytest.mark.parametrize("listing", LISTINGS)
def test_pages_of_one_end_to_end_are_the_whole_listing(client: httpx2.Client, listing: str) -> None:
    query = f"""query ($first: Int!, $after: String) {{ {listing}(first: $first, after: $after) {{
        edges {{ node {{ {LISTINGS[listing]} }} }} pageInfo {{ hasNextPage endCursor }} }} }}"""
    whole = ask(client, query, first=200)[listing]["edges"]
    seen, page = [], {"pageInfo": {"hasNextPage": True, "endCursor": None}}
    while page["pageInfo"]["hasNextPage"]:
        page = ask(client, query, first=1, after=page["pageInfo"]["endCursor"])[listing]
        seen += page["edges"]
    assert seen == whole != []


def test_a_balance_is_explained_back_to_each_event(client: httpx2.Client) -> None:
    why = ask(
        client,
        """{ whyBalance(customerId: "bob", currency: "EUR") { balance debt
            because(first: 200) { edges { node { sentence
                transfer { walletChange debtChange eventId order { orderId } } } } } } }""",
    )["whyBalance"]
    told = [edge["node"] for edge in why["because"]["edges"]]
    assert sum(one["transfer"]["walletChange"] for one in told) == why["balance"]
    assert sum(one["transfer"]["debtChange"] for one in told) == why["debt"]
    assert any("Because of event b1/r1 from /shop." in one["sentence"] for one in told)
    assert any("Because of the grant g-late." in one["sentence"] for one in told)


def test_campaigns_tell_terms_spend_redemptions_and_refusals(client: httpx2.Client) -> None:
    page = ask(
        client,
        """{ campaigns(first: 3) { edges { node { campaignId version terms netSpend liveRedemptions budget
            versions { version } redemptionsByDay { day redemptions discount released }
            refusalsByReason { reason times } } } pageInfo { hasNextPage } } }""",
    )["campaigns"]
    assert [edge["node"]["campaignId"] for edge in page["edges"]] == ["dinar", "e", "gift"]
    assert page["pageInfo"]["hasNextPage"]
    k = ask(client, '{ campaign(campaignId: "k") { netSpend redemptionsByDay { day redemptions discount released } } }')
    assert sum(one["redemptions"] for one in k["campaign"]["redemptionsByDay"]) == 4
    assert sum(one["released"] for one in k["campaign"]["redemptionsByDay"]) >= 1


def test_what_waits_and_what_is_odd_is_listed_with_its_orders(client: httpx2.Client) -> None:
    found = ask(
        client,
        """{ waiting(first: 1) { edges { node { orderId fact waitsFor order { facts { fact } } } } pageInfo { endCursor } }
            anomalies { edges { node { orderId reason subject order { customerId } } } } }""",
    )
    assert [edge["node"]["orderId"] for edge in found["waiting"]["edges"]] == ["never"]
    behind = ask(
        client,
        "query ($after: String) { waiting(after: $after) { edges { node { orderId } } } }",
        after=found["waiting"]["pageInfo"]["endCursor"],
    )
    assert [edge["node"]["orderId"] for edge in behind["waiting"]["edges"]] == ["never"]
    assert {edge["node"]["order"]["customerId"] for edge in found["anomalies"]["edges"]} == {"cat", "dan"}


LETTERS = """{ deadLetters(first: 50, filter: {statuses: ["open", "discarded"]}) { edges { node {
    id status reason group cause orderId edited ageS history { edges { node { act actor reason } } }
    content { body { encoding text } editedBody { text } headers } } } } }"""


def test_letters_are_told_with_their_acts_and_bodies(client: httpx2.Client, world: str) -> None:
    told = [edge["node"] for edge in ask(client, LETTERS)["deadLetters"]["edges"]]
    assert len(told) == 5
    [edited] = [one for one in told if one["edited"]]
    assert json.loads(edited["content"]["editedBody"]["text"])["data"]["currency"] == "EUR"
    assert [edge["node"]["act"] for edge in edited["history"]["edges"]] == ["edited", "collected"]
    found = ask(
        client,
        """{ deadLetterGroups { group reason count } deadLetterRuns { edges { node { run act done pending } } }
            deadLetterActs(first: 2) { edges { node { act actor } } pageInfo { hasNextPage } }
            deadLetter(id: 1) { id } none: deadLetter(id: 999) { id } }""",
    )
    assert [one["count"] for one in found["deadLetterGroups"]] == [4]
    assert found["deadLetterActs"]["pageInfo"]["hasNextPage"]
    assert (found["deadLetter"], found["none"]) == ({"id": 1}, None)


def test_of_a_body_as_much_is_told_as_is_asked_for(client: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    query = "query ($n: Int!) { deadLetter(id: 1) { content(bytes: $n) { body { encoding text size } } } }"
    body = ask(client, query, n=20)["deadLetter"]["content"]["body"]
    assert (body["encoding"], len(body["text"])) == ("utf-8", 20)
    assert body["size"] > 20
    assert code(client, query, n=2**21) == "out-of-bounds"
    greedy = "{ deadLetters(first: 50) { edges { node { content(bytes: 1048576) { headers } } } } }"
    assert ask(client, greedy)["deadLetters"]["edges"]
    monkeypatch.setattr(dead_letters, "ANSWER_BYTES_MAX", 2**22)
    assert code(client, greedy) == "answer-too-large"


def test_a_quote_is_the_core_s_own(client: httpx2.Client, world: str) -> None:
    request = {
        "quoteId": "q1",
        "customerId": "ann",
        "currency": "EUR",
        "at": text(NOON),
        "lines": [{"lineId": "a", "sku": "s", "quantity": 2, "unitPrice": 700}],
        "coupons": ["K", "nope"],
        "creditRequested": 50,
    }
    query = """query ($request: QuoteRequest!) { quote(request: $request) { quoteId customerId currency
        coupons { code campaignId discount refusal } credit { requested applied shortfall refusal }
        earned { campaignId amount refusal } lines { lineId gross discount credit payable }
        moneyDueBack walletBalance debt } }"""
    told = snake(ask(client, query, request=request)["quote"])
    basket = [line("a", 2, 700) | {"sku": "s"}]
    wanted = {"quote_id": "q1", "customer_id": "ann", "currency": "EUR", "at": text(NOON), "lines": basket}
    with closing(Session(world)) as session:
        own = quote(session, QuoteRequested.model_validate(wanted | {"coupons": ["K", "nope"], "credit_requested": 50}))
    assert told == without(own, "as_of")
    assert told["coupons"][0]["discount"] == 100
    assert code(client, query, request=request | {"lines": []}) == "out-of-bounds"


# ── How much is read ─────────────────────────────────────────────────────────────────────────────────────────────────


def statements(url: str, query: str) -> int:
    """How many statements an answer takes."""
    counted: list[object] = []
    execute = psycopg.Cursor.execute

    def counting(self: Any, query: Any, *given: Any, **named: Any) -> Any:
        counted.append(query)
        return execute(self, query, *given, **named)

    with program_at(Settings(database_url=url), SUPPORT) as client, pytest.MonkeyPatch.context() as patch:
        ask(client, query)
        counted.clear()
        patch.setattr(psycopg.Cursor, "execute", counting)
        ask(client, query)
        return len(counted)


NESTED = {
    "orders of a statement": """{{ wallet(customerId: "ann", currency: "EUR") {{ transfers(first: {n}) {{ edges {{ node {{
        order {{ orderId facts {{ fact }} decision {{ coupons {{ code }} }} outcomes {{ type }} }} }} }} }} }} }}""",
    "orders of anomalies": "{{ anomalies(first: {n}) {{ edges {{ node {{ order {{ lots {{ lotNo }} }} }} }} }} }}",
    "campaigns": """{{ campaigns(first: {n}) {{ edges {{ node {{ versions {{ version }} redemptionsByDay {{ day }}
        refusalsByReason {{ reason }} }} }} }} }}""",
    "letters": """{{ deadLetters(first: {n}, filter: {{statuses: ["open", "discarded"]}}) {{ edges {{ node {{
        history {{ edges {{ node {{ act }} }} }} content {{ body {{ text }} }} order {{ orderId }} }} }} }} }}""",
}


@pytest.mark.parametrize("query", NESTED.values(), ids=list(NESTED))
def test_many_are_read_in_as_many_statements_as_few(world: str, query: str) -> None:
    few, many = (statements(world, query.format(n=n)) for n in (3, 7))
    assert few == many <= 20


def test_wallets_under_aliases_are_read_at_once(world: str) -> None:
    several = "".join(
        f'w{n}: wallet(customerId: "{name}", currency: "EUR") {{ balance lots {{ lotNo }} transfers {{ edges {{ cursor }} }} }}'
        for n, name in enumerate(("ann", "bob", "cat", "dan"))
    )
    one = several.partition("w1")[0]
    assert statements(world, f"{{ {one} }}") == statements(world, f"{{ {several} }}")


def test_an_answer_shows_one_moment(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is booked while it is being read."""
    play(database_url)

    def after_a_grant(*given: Any, **named: Any) -> Any:
        with closing(Session(database_url)) as session:
            give(session, f"meanwhile-{uuid4()}", 1_000)
        return wallet_lots(*given, **named)

    monkeypatch.setattr("incentive_fleet.console.graphql.wallets.wallet_lots", after_a_grant)
    query = """{ wallet(customerId: "ann", currency: "EUR") { balance lots { remaining }
        transfers(first: 1) { edges { node { balanceAfter } } } } }"""
    with program_at(Settings(database_url=database_url), SUPPORT) as client:
        first, second = (ask(client, query)["wallet"] for _ in range(2))
    for shown in (first, second):
        assert shown["balance"] == sum(lot["remaining"] for lot in shown["lots"])
        assert shown["balance"] == shown["transfers"]["edges"][0]["node"]["balanceAfter"]
    assert second["balance"] == first["balance"] + 1_000


# ── Who may, and what is refused ─────────────────────────────────────────────────────────────────────────────────────


def test_a_viewer_sees_letters_and_acts_and_no_body_wallet_or_order(world: str) -> None:
    with program_at(Settings(database_url=world), VIEWER) as client:
        shown = ask(
            client,
            """{ deadLetters { edges { node { id orderId history { edges { node { act } } } } } }
                deadLetterGroups { count } deadLetterRuns { edges { node { run } } }
                deadLetterActs { edges { node { act } } } }""",
        )
        assert shown["deadLetters"]["edges"]
        for refused in (
            'wallets(customerId: "ann") { balance }',
            'order(orderId: "full") { orderId }',
            "waiting { edges { cursor } }",
            "anomalies { edges { cursor } }",
            "campaigns { edges { cursor } }",
            "deadLetters { edges { node { content { headers } } } }",
            'deadLetters(filter: {text: "x"}) { edges { cursor } }',
            'deadLetters(filter: {customer: "x"}) { edges { cursor } }',
        ):
            assert code(client, f"{{ {refused} }}") == "role-missing", refused


def test_support_reads_and_books_nothing(world: str) -> None:
    with program_at(Settings(database_url=world), SUPPORT) as client:
        assert ask(client, '{ wallet(customerId: "ann", currency: "EUR") { balance } }')["wallet"]
        for refused in (
            'reverseGrant(key: "g-ann", reason: "x") { returned }',
            'resolveAnomaly(orderId: "odd", reason: "unknown-line", subject: "z", note: "x") { reason }',
            'grant(input: {key: "k", customerId: "c", currency: "EUR", amount: 1, campaignId: "gift"}) { result }',
        ):
            assert code(client, f"mutation {{ {refused} }}") == "role-missing", refused


def left_behind(act: Callable[[], object]) -> Counter[str]:
    """What doing it ten times leaves for the collector of cyclic garbage to find, by type."""
    act()  # what is made once is kept
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(10):
            act()
        gc.collect()
        return Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_an_answer_leaves_nothing_that_others_wait_for_while_it_is_cleared_away(client: httpx2.Client) -> None:
    assert left_behind(lambda: ask(client, WALLET, customer="ann")) == Counter()
    assert left_behind(lambda: ask(client, ORDER, id="odd")) == Counter()


PAGE = (Path(__file__).parents[2] / "docs/graphql.md").read_text(encoding="utf-8")


def test_what_the_page_shows_is_answered(database_url: str) -> None:
    play(database_url)
    examples = re.findall(r"^```graphql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(examples) >= 6
    with program_at(Settings(database_url=database_url), OPERATOR) as client:
        for example in examples:
            assert None not in ask(client, example).values(), example


GRANT = """mutation ($grant: GrantInput!) { grant(input: $grant) { key result } }"""


def test_grants_are_handed_out_once_and_taken_back_in_the_visitors_name(
    database_url: str,
) -> None:
    play(database_url)
    one = {"key": "sorry", "customerId": "zed", "currency": "EUR", "amount": 250, "campaignId": "gift"}
    with program_at(Settings(database_url=database_url), OPERATOR, name="anna") as client:
        results = [ask(client, GRANT, grant=one)["grant"]["result"] for _ in range(2)]
        assert results == ["granted", "already-granted"]
        assert code(client, GRANT, grant=one | {"amount": 251}) == "key-taken"
        assert code(client, GRANT, grant=one | {"key": "n", "campaignId": "nope"}) == "unknown-campaign"
        assert code(client, GRANT, grant=one | {"key": "n", "amount": -5}) == "bad-amount"
        assert code(client, GRANT, grant=one | {"key": "n", "amount": 2.0}) == "malformed"
        until = ask(client, GRANT, grant=one | {"key": "until", "expiresAt": "2030-01-01T00:00:00+01:00"})
        assert until["grant"]["result"] == "granted"
        back = 'mutation { reverseGrant(key: "sorry", reason: "typo") { returned spent again } }'
        assert ask(client, back)["reverseGrant"] == {"returned": 250, "spent": 0, "again": False}
        assert ask(client, back)["reverseGrant"]["again"]
        assert code(client, 'mutation { reverseGrant(key: "none", reason: "x") { spent } }') == "unknown-grant"
        resolve = """mutation { resolveAnomaly(orderId: "odd", reason: "unknown-line", subject: "z", note: "called") {
            resolvedBy resolution order { orderId } } }"""
        resolved = ask(client, resolve)["resolveAnomaly"]
        assert resolved["resolution"] == "called"
        assert code(client, resolve) == "already-resolved"
        left = ask(client, "{ anomalies { edges { node { orderId subject } } } }")["anomalies"]["edges"]
        assert {"orderId": "odd", "subject": "z"} not in [edge["node"] for edge in left]
    [(who,)] = rows(database_url, "SELECT resolved_by FROM anomalies WHERE subject = 'z'")
    assert (who, resolved["resolvedBy"]) == ("anna", "anna")
    acts = rows(database_url, "SELECT key, act, actor FROM grant_acts ORDER BY key, act")
    assert acts == [("sorry", "granted", "anna"), ("sorry", "reversed", "anna"), ("until", "granted", "anna")]


LONG = """
    transfers { transferId kind debitAccount creditAccount currency amount lotNo cause happenedAt bookedAt }
    outcomes { sequence type fact createdAt body unpublished }
    facts { fact source eventId digest data happenedAt recordedAt }
"""


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("{ nothing }", "malformed"),
        ("{", "malformed"),
        ("{ wallets(customerId: 3) { balance } }", "malformed"),
        ('{ wallets(customerId: "\\u0000") { balance } }', "malformed"),
        ("{ anomalies(first: 0) { edges { cursor } } }", "page-out-of-bounds"),
        ("{ anomalies(first: 201) { edges { cursor } } }", "page-out-of-bounds"),
        ('{ anomalies(after: "e30") { edges { cursor } } }', "bad-cursor"),
        (
            f"{{ anomalies(first: 200) {{ edges {{ node {{ order {{ {LONG} }} }} }} }} }}",
            "too-costly",
        ),
        ("{ " + " ".join(f"a{n}: __typename" for n in range(31)) + " }", "too-many-aliases"),
        ("{ " + "__typename " * 501 + " }", "too-many-fields"),
        ("{ " + "... { " * 40 + "__typename" + " }" * 40 + " }", "too-deep"),
        ("{ wallets" + "{a" * 3_000, "malformed"),
        ("mutation A { __typename } query B { __typename }", "unknown-operation"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_answered_is_named(client: httpx2.Client, query: str, expected: str) -> None:
    answer = client.post("/graphql", json={"query": query})
    assert answer.json()["errors"][0]["extensions"]["code"] == expected
    assert "Traceback" not in answer.text


def test_fragments_that_double_are_refused_before_anything_runs(client: httpx2.Client) -> None:
    spread = "".join(f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(60))
    query = f"{{ ...f0 }} {spread} fragment f60 on Query {{ __typename }}"
    assert code(client, query) == "too-costly"


def test_a_mutation_comes_by_post_and_as_json(client: httpx2.Client) -> None:
    mutation = 'mutation { reverseGrant(key: "g-ann", reason: "x") { returned } }'
    answer = client.get("/graphql", params={"query": mutation})
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert (
            client.post("/graphql", content=json.dumps({"query": mutation}), headers={"Content-Type": kind}).status_code
            == 415
        )
    query = client.get(
        "/graphql",
        params={"query": "query ($c: String!) { wallets(customerId: $c) { balance } }", "variables": '{"c": "ann"}'},
    )
    assert query.json()["data"]["wallets"]


def test_a_query_is_named_by_its_hash_once_it_was_sent(client: httpx2.Client) -> None:
    query = '{ wallets(customerId: "ann") { balance currency } }'
    named = {"persistedQuery": {"version": 1, "sha256Hash": sha256(query.encode()).hexdigest()}}
    unknown = client.post("/graphql", json={"extensions": named})
    assert unknown.status_code == 200
    assert unknown.json()["errors"] == [
        {"message": "PersistedQueryNotFound", "extensions": {"code": "persisted-query-not-found"}}
    ]
    assert client.post("/graphql", json={"query": query + " ", "extensions": named}).status_code == 400
    sent = client.post("/graphql", json={"query": query, "extensions": named}).json()
    assert client.get("/graphql", params={"extensions": json.dumps(named)}).json() == sent


# ── When parts are slow or away ──────────────────────────────────────────────────────────────────────────────────────


def test_a_deadline_ends_a_read_that_waits(client: httpx2.Client, world: str) -> None:
    with psycopg.connect(world) as owner:
        owner.execute("LOCK TABLE wallets")
        found = fault(client, '{ wallets(customerId: "ann") { balance } }', headers={"X-Deadline-Ms": "150"})
        assert found["extensions"]["code"] == "deadline-passed"
        assert found["message"] == "the deadline of the request has passed"
    assert ask(client, '{ wallets(customerId: "ann") { balance } }')["wallets"]
    for wrong in ("0", "-1", "soon", "30001", "²"):
        headers = {"X-Deadline-Ms": wrong.encode()}
        answer = client.post("/graphql", json={"query": "{ __typename }"}, headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 400, wrong


def test_a_deadline_ends_what_the_core_does_as_well(database_url: str) -> None:
    play(database_url)
    one = {"key": "late", "customerId": "zed", "currency": "EUR", "amount": 250, "campaignId": "gift"}
    basket = """{quoteId: "q", customerId: "zed", currency: "EUR", at: "2026-01-10T12:00:00Z",
        lines: [{lineId: "a", sku: "s", quantity: 1, unitPrice: 900}]}"""
    quote = f"{{ quote(request: {basket}) {{ walletBalance }} }}"
    with program_at(Settings(database_url=database_url), OPERATOR) as client:
        with psycopg.connect(database_url) as owner:
            owner.execute("LOCK TABLE wallets")
            assert code(client, quote, headers={"X-Deadline-Ms": "300"}) == "deadline-passed"
            # Of what writes, the core finds out by an order of its own that not this grant is at fault.
            assert code(client, GRANT, headers={"X-Deadline-Ms": "300"}, grant=one) == "not-available"
        assert ask(client, quote)["quote"]["walletBalance"] == 0
        assert ask(client, GRANT, grant=one)["grant"]["result"] == "granted"


def test_slow_reads_leave_the_others_alone(client: httpx2.Client, world: str) -> None:
    with psycopg.connect(world) as owner:
        owner.execute("LOCK TABLE anomalies")
        slow = threading.Thread(
            target=lambda: client.post("/graphql", json={"query": "{ anomalies { edges { cursor } } }"})
        )
        slow.start()
        assert ask(client, '{ wallets(customerId: "ann") { balance } }')["wallets"]
        assert slow.is_alive()
        owner.rollback()
        slow.join(10)


def test_an_unexpected_error_is_logged_once_and_not_told(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_given: Any, **_named: Any) -> Any:
        raise KeyError("secret of the driver")

    monkeypatch.setattr("incentive_fleet.console.graphql.wallets.wallet_lots", broken)
    with caplog.at_level(logging.WARNING, "incentive_fleet.console"):
        query = '{ a: wallets(customerId: "ann") { balance lots { lotNo } } }'
        answer = client.post("/graphql", json={"query": query})
    assert "secret" not in answer.text
    assert {error["extensions"]["code"] for error in answer.json()["errors"]} == {"internal"}
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_a_replica_that_is_away_is_said_to_be(world: str, postgres: Postgres) -> None:
    settings = Settings(database_url=world, read_database_url=postgres.url("no_such_database"))
    with program_at(settings, SUPPORT) as client:
        found = fault(client, '{ wallets(customerId: "ann") { balance } }')
    assert found["extensions"]["code"] == "not-available"
    assert "no_such_database" not in found["message"]


def test_reads_come_from_the_replica_and_nothing_that_decides_does(world: str, database_url: str) -> None:
    """Two ledgers that differ: what was read and what was decided show where each came from."""
    play(database_url)
    with program_at(Settings(database_url=database_url, read_database_url=world), OPERATOR) as client:
        one = {"key": "here", "customerId": "new", "currency": "EUR", "amount": 250, "campaignId": "gift"}
        assert ask(client, GRANT, grant=one)["grant"]["result"] == "granted"
        assert ask(client, '{ wallets(customerId: "new") { balance } }') == {"wallets": []}
        assert ask(client, "{ deadLetters { edges { cursor } } }")["deadLetters"]["edges"]
        basket = """{quoteId: "q", customerId: "new", currency: "EUR", at: "2026-01-10T12:00:00Z", creditRequested: 100,
            lines: [{lineId: "a", sku: "s", quantity: 1, unitPrice: 900}]}"""
        assert ask(client, f"{{ quote(request: {basket}) {{ walletBalance }} }}")["quote"]["walletBalance"] == 250
