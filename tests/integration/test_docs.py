"""What the pages show is what happens: the JSON of docs/command-line.md, the outputs of README and tour, the first event."""

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
TOUR = (ROOT / "docs/tour.md").read_text(encoding="utf-8")
PUBLISHING = (ROOT / "docs/publishing.md").read_text(encoding="utf-8")
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
    "dlq conflict": {"applied.data", "corrections[].events[]"},
    "dlq runs": {"runs[].parameters"},
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
    ("dlq groups", 0, ""),
    ("dlq list", 0, ""),
    ("dlq list", 1, "--group"),
    ("dlq show", 0, "1 --effect"),
    ("dlq conflict", 0, "5"),
    ("dlq edit", 0, "3 --set data.currency=EUR"),
    ("dlq replay", 0, "3 --dry-run"),
    ("dlq replay", 1, "3"),
    ("dlq discard", 0, "1 --reason noise"),
    ("dlq restore", 0, "1"),
    ("dlq runs", 0, ""),
    ("dlq purge", 0, "--closed --older-than 90d"),
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


def test_the_first_event_is_taken_by_both_brokers(database_url: str, rabbitmq: RabbitMQ, moto_server: Aws) -> None:
    settings = {
        "INCENTIVES_DATABASE_URL": database_url,
        "INCENTIVES_RABBITMQ_URL": rabbitmq.url,
        "INCENTIVES_WAIT_S": "0.2",
        **moto_server.environment,
    }
    with_boto3, with_kombu = re.findall(r"^```python\n(.*?)^```$", PUBLISHING, re.MULTILINE | re.DOTALL)[:2]
    run(["topology", "apply", "--format", "json"], settings)
    program = with_boto3 + with_kombu  # the second publishes the event of the first
    subprocess.run([sys.executable, "-c", program], env={**os.environ, **settings}, check=True, timeout=60)
    counts = run(["consume", "--from", "all", "--until-idle", "0.5", "--format", "json"], settings)["counts"]
    assert counts == {"applied": 1, "duplicate": 1}


def shown(page: str) -> list[tuple[str, str]]:
    """Each command of a page's console blocks, in order, with the output that stands below it."""
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [(c, o) for block in blocks for c, _, o in (part.partition("\n") for part in block.split("$ ")[1:])]


# What differs from run to run: rates, the clock, ports.
VOLATILE = re.compile(r"\d{4}-\d\d-\d\dT[\d:]+\.\d+Z|in [\d.]+ s \([\d,.]+/s\)|age: [\d:]+|seen: \d+ s ago")
# These list what happened in the order in which two queues were heard, which differs. Balances and headings do not.
BY_ARRIVAL = {("wallet", "anna"): "happened", ("order", "o-1001"): "transfers"}
LOG_LINE = '{"@timestamp": '  # the pages leave the log out, and the tour says so
NOT_PLAYED = {"incentives up", "incentives down"}  # the tour's parts are the test's


def same(command: str, expected: str, printed: str) -> bool:
    """Whether this output is that of the page, where `...` stands for any lines."""
    words = tuple(command.split()[1:3])
    if words in BY_ARRIVAL:
        expected, printed = (text.partition(f"\n{BY_ARRIVAL[words]}")[0] for text in (expected, printed))
        expected, printed = (re.sub(r"lot \d+|(?m:^\d+)", "", text) for text in (expected, printed))
        expected, printed = ("\n".join(sorted(text.splitlines())) for text in (expected, printed))
    expected, printed = (" ".join(VOLATILE.sub("~", text).split()) for text in (expected, printed))
    pattern = ".*".join(re.escape(part.strip()) for part in re.split(r"(?:^|\s)\.\.\.(?:\s|$)", expected))
    return re.fullmatch(pattern, printed) is not None


def test_the_tour_and_the_readme_show_what_is_printed(
    tmp_path: Path, database_url: str, rabbitmq: RabbitMQ, moto_server: Aws
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {
        **os.environ,
        **moto_server.environment,
        "INCENTIVES_ADMIN_DATABASE_URL": database_url,
        "INCENTIVES_DATABASE_URL": database_url.replace("postgres@", "incentives@"),  # as `up` has it
        "INCENTIVES_RABBITMQ_URL": rabbitmq.url,
        "INCENTIVES_RABBITMQ_MANAGEMENT_URL": rabbitmq.management_url,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    printed: dict[str, list[str]] = {}

    def play(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", f"exec 2>&1; {command}"],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return "".join(line for line in done.stdout.splitlines(keepends=True) if not line.startswith(LOG_LINE))

    play("incentives db upgrade && incentives topology apply")
    for command, expected in shown(TOUR):
        if command in NOT_PLAYED:
            continue
        if command.startswith("incentives dlq edit"):
            (letter,) = json.loads(play("incentives dlq list --reason unknown-currency --format json"))["dead_letters"]
            assert letter["id"] == 3, "letters came in another order"
        printed.setdefault(command, []).append(play(command))
        assert same(command, expected, printed[command][-1]), f"$ {command}\n{printed[command][-1]}"
    for command, expected in shown(README):
        if command not in NOT_PLAYED:
            assert same(command, expected, printed[command][0]), f"README: $ {command}\n{printed[command][0]}"
