"""What the pages show is what happens: the JSON of docs/command-line.md, and the README's first event on both brokers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from incentive_fleet.cli.root import cli
from incentive_fleet.embedded.aws import Aws
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from tests.command import incentives

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")

# Objects whose keys are not ours to document: counts by name, an event's or a campaign's own fields.
OPEN = {
    "backfill": {"rejected"},
    "expire": {"moved"},
    "campaigns list": {"campaigns[].terms"},
    "order": {"facts[].data", "terms[].terms"},
    "waiting": {"waiting[].data"},
    "ledger verify": {"checks[].first[]"},
    "consume": {"counts"},
    "relay": {"published", "refused", "unpublished"},
    "dlq show": {"headers", "history[].before", "history[].after"},
    "dlq history": {"acts[].before", "acts[].after"},
}
CURRENCY = "unknown-currency"
# (the section, which of its examples, what to run), in an order in which each has something to print.
PLAYED = [
    ("db upgrade", 0, ""),
    ("topology apply", 0, ""),
    ("campaigns load", 0, "sample/campaigns.toml"),
    ("campaigns list", 0, ""),
    ("grants load", 0, "sample/grants.csv"),
    ("grant", 0, "--key sorry-1 --customer-id anna --currency EUR --amount 200 --campaign-id hello"),
    ("grant reverse", 0, "sorry-1 --reason mistake"),
    ("publish", 0, "sample/events.jsonl --to rabbitmq"),
    ("consume", 0, "--from rabbitmq --until-idle 0.5"),
    ("relay", 0, "--until-idle 0.1"),
    ("backfill", 0, "sample/broken.jsonl"),
    ("expire", 0, "--as-of 2026-06-02T00:00:00Z"),
    ("ledger verify", 0, ""),
    ("wallet", 0, "anna"),
    ("order", 0, "o-1001"),
    ("waiting", 0, ""),
    ("anomalies", 0, ""),
    ("anomalies resolve", 0, "o-1001 unknown-line 99 --reason mistake"),
    ("publish", 0, "sample/broken.jsonl --to rabbitmq --raw"),
    ("consume", 0, "--from rabbitmq --until-idle 0.5 --no-collect"),
    ("dlq collect", 0, "--until-idle 0.5"),
    ("dlq list", 0, ""),
    ("dlq list", 1, "--group"),
    ("dlq show", 0, "1 --effect"),
    ("dlq edit", 0, "3 --set data.currency=EUR"),
    ("dlq replay", 0, "3 --dry-run"),
    ("dlq replay", 1, "3"),
    ("dlq discard", 0, "1 --reason noise"),
    ("dlq restore", 0, "1"),
    ("dlq history", 0, ""),
]


def documented(title: str, which: int = 0) -> Any:
    section = re.search(rf"^## incentives {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None, title
    return json.loads(re.findall(r"^```json\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)[which])


def run(words: list[str], settings: dict[str, str]) -> Any:
    """What a command prints. Those that set up signals and logs get a process of their own, the others save the start."""
    if words[0] in {"consume", "relay"} or words[:2] == ["dlq", "collect"]:
        ran = incentives(*words, env=settings)
        assert ran.code == 0, f"{words}: {ran.err}"
        return ran.document
    done = CliRunner().invoke(cli, words, env=settings)
    assert done.exit_code == 0, f"{words}: {done.output} {done.exception!r}"
    return json.loads(done.stdout)


def keys(value: Any, open_: set[str], at: str = "") -> set[str]:
    """Every path of keys in a document, list elements merged; what is open has a star for its keys."""
    if isinstance(value, list):
        objects = [element for element in value if isinstance(element, dict)]
        return {at}.union(*(keys(element, open_, f"{at}[]") for element in objects))
    if not isinstance(value, dict):
        return {at}
    if at in open_:
        return {f"{at}.*"}
    return {at}.union(*(keys(inner, open_, f"{at}.{name}".lstrip(".")) for name, inner in value.items()))


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    subprocess.run([sys.executable, ROOT / "examples/sample_files.py", tmp_path / "sample"], check=True)
    return tmp_path


def test_documented_json_has_the_keys_of_what_is_printed(
    sample: Path, database_url: str, rabbitmq: RabbitMQ, prefix: str
) -> None:
    settings = {
        "INCENTIVES_DATABASE_URL": database_url,
        "INCENTIVES_RABBITMQ_URL": rabbitmq.url,
        "INCENTIVES_PREFIX": prefix,
        "INCENTIVES_WAIT_S": "0.2",
        "AWS_REGION": "",
        "AWS_DEFAULT_REGION": "",
    }
    for title, which, rest in PLAYED:
        words = [str(sample / word) if word.startswith("sample/") else word for word in rest.split()]
        document = run([*title.split(), *words, "--format", "json"], settings)
        open_ = OPEN.get(title, set())
        assert keys(document, open_) == keys(documented(title, which), open_), f"{title} {rest}"
    for balances in (run(["ledger", "balances", "--format", "json"], settings), documented("ledger balances")):
        assert balances
        assert all(re.fullmatch(r".+\|[A-Z]{3}", key) and type(value) is int for key, value in balances.items())


def test_the_readmes_first_event_is_taken_by_both_brokers(
    database_url: str, rabbitmq: RabbitMQ, moto_server: Aws
) -> None:
    settings = {
        "INCENTIVES_DATABASE_URL": database_url,
        "INCENTIVES_RABBITMQ_URL": rabbitmq.url,
        "INCENTIVES_WAIT_S": "0.2",
        **moto_server.environment,
    }
    with_boto3, with_kombu = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    run(["topology", "apply", "--format", "json"], settings)
    program = with_boto3 + with_kombu  # the second publishes the event of the first
    subprocess.run([sys.executable, "-c", program], env={**os.environ, **settings}, check=True, timeout=60)
    counts = run(["consume", "--from", "all", "--until-idle", "0.5", "--format", "json"], settings)["counts"]
    assert counts == {"applied": 1, "duplicate": 1}
