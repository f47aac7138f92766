"""The facts we check against, where they lie beside the checkout: real orders and conformance worlds, played by command.

They are never committed; a checkout without them proves the same rules on the sample shop.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.command import incentives

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
