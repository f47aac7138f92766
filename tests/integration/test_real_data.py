"""The facts we check against, where they lie beside the checkout: real orders and conformance worlds, played by command.

They are never committed; a checkout without them proves the same rules on the sample shop.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from incentive_fleet.events.codec import decode
from incentive_fleet.ledger.session import Session
from tests.command import incentives
from tests.quoting import as_quoted, in_rounds

DATA = Path(__file__).parents[3] / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not beside this checkout")


def expected(path: Path) -> dict[str, int]:
    with gzip.open(path) as file:
        found: dict[str, int] = json.load(file)
    return found


def assert_ends_as(env: dict[str, str], path: Path) -> None:
    balances = incentives("ledger", "balances", "--format", "json", env=env).document
    assert balances == expected(path)
    assert incentives("ledger", "verify", env=env).code == 0


def test_the_years_digests_are_those_that_the_release_before_final_baskets_stored() -> None:
    digests = hashlib.sha256()
    with gzip.open(DATA / "online-retail.jsonl.gz") as lines:
        for line in lines:
            digests.update(decode(line.rstrip(b"\n")).digest)
    assert digests.hexdigest() == "eb401123758711122cb1565b276399f4a5b9efbb5400023ab0929f270bfca230"


def test_every_conformance_world_ends_as_expected(database_url: str) -> None:
    env = {"INCENTIVES_DATABASE_URL": database_url}
    worlds = DATA / "conformance"
    assert incentives("campaigns", "load", worlds / "campaigns.toml", env=env).code == 0
    assert incentives("grants", "load", worlds / "grants.csv", env=env).code == 0
    for phase, until in ((1, "2025-01-31"), (2, "2025-03-02"), (3, "2025-07-20")):
        assert incentives("backfill", worlds / f"phase-{phase}.jsonl.gz", env=env).code == 0
        assert incentives("expire", "--as-of", f"{until}T00:00:00Z", env=env).code == 0
    assert_ends_as(env, worlds / "expected.json.gz")


@pytest.mark.timeout(300)
def test_contended_terms_in_file_order_end_as_expected_and_hledger_agrees(database_url: str, tmp_path: Path) -> None:
    env = {"INCENTIVES_DATABASE_URL": database_url}
    assert incentives("campaigns", "load", DATA / "online-retail-contended.toml", env=env).code == 0
    assert incentives("backfill", DATA / "online-retail.jsonl.gz", env=env).code == 0
    assert incentives("expire", "--as-of", "2012-01-01T00:00:00Z", env=env).code == 0
    assert_ends_as(env, DATA / "online-retail-contended-expected.json.gz")
    journal = tmp_path / "ledger.journal"
    journal.write_text(incentives("ledger", "export", "--format", "hledger", env=env).out)
    assert shutil.which("hledger"), "hledger is not installed: make test installs it"
    subprocess.run(["hledger", "-f", str(journal), "check"], check=True)


@pytest.mark.timeout(300)
def test_roomy_terms_end_as_expected_whatever_came_twice(database_url: str) -> None:
    env = {"INCENTIVES_DATABASE_URL": database_url}
    assert incentives("campaigns", "load", DATA / "online-retail-campaigns.toml", env=env).code == 0
    assert incentives("grants", "load", DATA / "online-retail-grants.csv.gz", env=env).code == 0
    first = incentives("backfill", DATA / "online-retail.jsonl.gz", "--format", "json", env=env).document
    again = incentives("backfill", DATA / "online-retail.jsonl.gz", "--format", "json", env=env).document
    assert again["duplicates"] == first["events"]
    assert_ends_as(env, DATA / "online-retail-expected.json.gz")


def out(env: dict[str, str], *words: str | Path) -> list[dict[str, Any]]:
    """The CloudEvents that a command prints, one a line."""
    return [json.loads(text) for text in incentives(*words, env=env).out.splitlines()]


def given(data: dict[str, Any]) -> dict[str, Any]:
    """What an outcome of a placing, or a quote, says was given, in the shape of the expectations."""
    coupons = [
        [one["code"], None if one["refusal"] else one["campaign_id"], one["discount"], one["refusal"]]
        for one in data["coupons"]
    ]
    return {
        "coupons": sorted(coupons, key=str),
        "credit": [data["credit"][name] for name in ("requested", "applied", "shortfall")],
        "earned": [[one["campaign_id"], one["amount"]] for one in data["earned"] if not one["refusal"]],
    }


def standing(data: dict[str, Any]) -> list[list[Any]]:
    return [[one[name] for name in ("line_id", "gross", "discount", "credit", "payable")] for one in data["lines"]]


def sorted_coupons(wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: sorted(value, key=str) if name == "coupons" else value for name, value in wanted.items()}


# What is loaded and done between the phases of the second worlds.
BETWEEN = {
    2: (
        ("campaigns", "load", "campaigns-2.toml"),
        ("codes", "revoke", "revoked.csv", "--reason", "leaked"),
        ("audiences", "load", "audiences-2.csv"),
        ("wallets", "hold", "h1", "--reason", "dispute"),
    ),
    3: (("wallets", "release", "h1", "--reason", "settled"),),
}


@pytest.mark.chaos
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("folder", "loads", "between"),
    [
        ("conformance", ("campaigns", "grants"), {}),
        ("conformance-2", ("campaigns", "codes", "audiences", "grants"), BETWEEN),
    ],
)
def test_a_quote_and_then_its_placing_decide_alike_in_every_world(
    folder: str, loads: tuple[str, ...], between: dict[int, tuple[tuple[str, ...], ...]], database_url: str
) -> None:
    env, worlds = {"INCENTIVES_DATABASE_URL": database_url}, DATA / folder

    def run(*words: str) -> None:
        there = [worlds / word if (worlds / word).is_file() else word for word in words]
        assert incentives(*there, env=env).code in (0, 1)  # some grants are refused

    for what in loads:
        run(what, "load", "campaigns.toml" if what == "campaigns" else f"{what}.csv")
    currencies, compared = dict[str, str](), 0
    with closing(Session(database_url)) as session:
        for phase, until in ((1, "2025-01-31"), (2, "2025-03-02"), (3, "2025-07-20")):
            for words in between.get(phase, ()):
                run(*words)
            with gzip.open(worlds / f"phase-{phase}.jsonl.gz") as file:
                for batch in in_rounds((line for line in file if line.strip()), currencies):
                    for order, quoted, given in as_quoted(session, batch):
                        assert quoted == given, order
                        compared += 1
            run("expire", "--as-of", f"{until}T00:00:00Z")
        orders = session.connection.execute("SELECT count(*) FROM decisions").fetchone()
    assert (compared,) == orders
    assert compared > 100


@pytest.mark.timeout(300)
def test_every_world_of_groceries_ends_as_expected_in_balances_outcomes_notices_and_quotes(database_url: str) -> None:
    env = {"INCENTIVES_DATABASE_URL": database_url}
    worlds = DATA / "conformance-2"
    words: tuple[str | Path, ...]
    for words in (
        ("campaigns", "load", worlds / "campaigns.toml"),
        ("codes", "load", worlds / "codes.csv"),
        ("audiences", "load", worlds / "audiences.csv"),
    ):
        assert incentives(*words, env=env).code == 0
    assert incentives("grants", "load", worlds / "grants.csv", env=env).code == 1  # some rows are refused
    counts = []
    for phase, until in ((1, "2025-01-31"), (2, "2025-03-02"), (3, "2025-07-20")):
        for step in BETWEEN.get(phase, ()):
            words = tuple(worlds / word if word.endswith((".csv", ".toml")) else word for word in step)
            assert incentives(*words, env=env).code == 0
        path = worlds / f"phase-{phase}.jsonl.gz"
        counts.append(incentives("backfill", path, "--format", "json", env=env).document)
        as_of = ("--as-of", f"{until}T00:00:00Z")
        assert incentives("expire", *as_of, env=env).code == 0
        assert incentives("remind", *as_of, "--days", "14", env=env).code == 0
    assert_ends_as(env, worlds / "expected.json.gz")
    for found, wanted in zip(counts, json.loads((worlds / "expected-counts.json").read_text()), strict=True):
        rejected = Counter(found["rejected"])
        told = {name: rejected.pop(name, 0) for name in wanted if name not in ("duplicate", "malformed")}
        assert told | {"duplicate": found["duplicates"], "malformed": rejected.total()} == wanted
    published = out(env, "outcomes", "export")
    _compare_outcomes(worlds, [one["data"] for one in published if "cause" in one["data"]])
    _compare_notices(worlds, [one for one in published if "cause" not in one["data"]])
    with gzip.open(worlds / "expected-quotes.json.gz") as file:
        quotes = json.load(file)
    answers = {one["subject"]: one["data"] for one in out(env, "quote", worlds / "quotes.jsonl.gz")}
    assert {
        name: given(data) | {"lines": standing(data), "wallet_balance": data["wallet_balance"]}
        for name, data in answers.items()
    } == {name: sorted_coupons(wanted) for name, wanted in quotes.items()}


def _compare_outcomes(worlds: Path, outcomes: list[dict[str, Any]]) -> None:
    with gzip.open(worlds / "expected-outcomes.json.gz") as file:
        wanted = json.load(file)
    found: dict[str, dict[str, Any]] = {}
    for data in outcomes:
        key = f"{data['order_id']}|{data['cause']['fact']}"
        found[key] = {"money_due_back": data["money_due_back"], "lines": standing(data)}
        if data["cause"]["fact"] == "placing":
            found[key]["given"] = given(data)
    for one in wanted.values():
        if "given" in one:
            one["given"] = sorted_coupons(one["given"])
    assert found == wanted


def _compare_notices(worlds: Path, notices: list[dict[str, Any]]) -> None:
    with gzip.open(worlds / "expected-notices.json.gz") as file:
        wanted = json.load(file)
    found = []
    for one in notices:
        data = one["data"]
        last = [data["day"]] if "day" in data else [data["campaign_id"], data["expires_at"]]
        found.append([one["type"], data["customer_id"], data["currency"], data["amount"], *last])
    assert sorted(found, key=str) == sorted(wanted, key=str)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_a_year_of_final_baskets_ends_as_expected_line_by_line(database_url: str) -> None:
    env = {"INCENTIVES_DATABASE_URL": database_url}
    for words in (
        ("campaigns", "load", DATA / "online-retail-final-campaigns.toml"),
        ("codes", "load", DATA / "online-retail-final-codes.csv.gz"),
        ("grants", "load", DATA / "online-retail-grants.csv.gz"),
        ("backfill", DATA / "online-retail-final.jsonl.gz"),
    ):
        assert incentives(*words, env=env).code == 0
    assert_ends_as(env, DATA / "online-retail-final-expected.json.gz")
    with gzip.open(DATA / "online-retail-final-expected-outcomes.json.gz") as file:
        wanted = json.load(file)
    found = {}
    for one in out(env, "outcomes", "export"):
        data = one["data"]
        if "cause" in data:
            sums = [sum(line[name] for line in data["lines"]) for name in ("gross", "discount", "credit", "payable")]
            found[f"{data['order_id']}|{data['cause']['fact']}"] = [data["money_due_back"], *sums]
    assert found == wanted
