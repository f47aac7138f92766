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
from tests.expectations import (
    BETWEEN,
    DATA,
    GROCERIES,
    PHASES,
    counted_of_worlds,
    differing,
    expected,
    wrong_notices_of_worlds,
    wrong_outcomes_of_the_year,
    wrong_outcomes_of_worlds,
    wrong_quotes_of_worlds,
)
from tests.quoting import as_quoted, in_rounds

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not beside this checkout")


def assert_ends_as(env: dict[str, str], path: Path) -> None:
    balances = incentives("ledger", "balances", "--format", "json", env=env).document
    assert differing(balances, expected(path)) == {}
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
    for phase, until in PHASES:
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
        for phase, until in PHASES:
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
    words: tuple[str | Path, ...]
    for words in (
        ("campaigns", "load", GROCERIES / "campaigns.toml"),
        ("codes", "load", GROCERIES / "codes.csv"),
        ("audiences", "load", GROCERIES / "audiences.csv"),
    ):
        assert incentives(*words, env=env).code == 0
    assert incentives("grants", "load", GROCERIES / "grants.csv", env=env).code == 1  # some rows are refused
    counts = []
    for phase, until in PHASES:
        for step in BETWEEN.get(phase, ()):
            words = tuple(GROCERIES / word if word.endswith((".csv", ".toml")) else word for word in step)
            assert incentives(*words, env=env).code == 0
        path = GROCERIES / f"phase-{phase}.jsonl.gz"
        counts.append(incentives("backfill", path, "--format", "json", env=env).document)
        as_of = ("--as-of", f"{until}T00:00:00Z")
        assert incentives("expire", *as_of, env=env).code == 0
        assert incentives("remind", *as_of, "--days", "14", env=env).code == 0
    assert_ends_as(env, GROCERIES / "expected.json.gz")
    for found, wanted in zip(counts, counted_of_worlds(), strict=True):
        rejected = Counter(found["rejected"])
        told = {name: rejected.pop(name, 0) for name in wanted if name not in ("duplicate", "malformed")}
        assert told | {"duplicate": found["duplicates"], "malformed": rejected.total()} == wanted
    published = out(env, "outcomes", "export")
    assert wrong_outcomes_of_worlds(published) == {}
    assert wrong_notices_of_worlds(published) == {}
    assert wrong_quotes_of_worlds(out(env, "quote", GROCERIES / "quotes.jsonl.gz")) == {}


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
    assert wrong_outcomes_of_the_year(out(env, "outcomes", "export")) == {}
