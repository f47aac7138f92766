"""The command line's contract: names, exit codes, one JSON document, errors that name the field and the value."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from incentive_fleet.cli.command_line import Group
from incentive_fleet.cli.root import COMMANDS
from incentive_fleet.embedded import sample_shop
from tests.command import every_command, incentives

SHOP = sample_shop.Shop(40, seed=3, refunds=0.3)


@pytest.fixture
def env(database_url: str) -> dict[str, str]:
    return {"INCENTIVES_DATABASE_URL": database_url}


@pytest.fixture
def campaigns_file(tmp_path: Path) -> Path:
    path = tmp_path / "campaigns.toml"
    path.write_text(sample_shop.CAMPAIGNS)
    return path


@pytest.fixture
def grants_file(tmp_path: Path) -> Path:
    path = tmp_path / "grants.csv"
    rows = [
        f"{key},{customer},{currency},{amount},{campaign},"
        for key, customer, currency, amount, campaign in sample_shop.grants(SHOP)
    ]
    path.write_text("\n".join(["key,customer_id,currency,amount,campaign_id,expires_at", *rows, ""]))
    return path


@pytest.fixture
def events_file(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(body + b"\n" for _, body in sample_shop.events(SHOP))))
    return path


@pytest.fixture
def stocked(env: dict[str, str], campaigns_file: Path, grants_file: Path) -> dict[str, str]:
    assert incentives("campaigns", "load", campaigns_file, env=env).code == 0
    assert incentives("grants", "load", grants_file, env=env).code == 0
    return env


def test_help_names_every_command_and_imports_none_of_the_drivers() -> None:
    program = (
        "import sys, click; from incentive_fleet.cli.root import cli\n"
        "try: cli.main(['--help'], standalone_mode=False)\n"
        "finally: print([m for m in ('psycopg','boto3','pika','kombu','pydantic','rich','sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    ran = incentives(name, "--help")
    assert ran.code == 0
    assert ran.out.startswith("Usage: ")


def test_a_backfill_applies_and_a_second_one_finds_duplicates(stocked: dict[str, str], events_file: Path) -> None:
    first = incentives("backfill", events_file, "--format", "json", env=stocked).document
    again = incentives("backfill", events_file, "--format", "json", env=stocked).document
    assert first["applied"] + first["waiting"] == first["events"] == again["duplicates"]
    assert incentives("ledger", "verify", "--format", "json", env=stocked).document["sound"] is True


def test_a_backfill_writes_rejects_and_applies_the_rest(
    stocked: dict[str, str], events_file: Path, tmp_path: Path
) -> None:
    mixed, rejects = tmp_path / "mixed.jsonl", tmp_path / "rejects.jsonl"
    good = gzip.decompress(events_file.read_bytes())
    poison = [body for _, _, body in sample_shop.poison(SHOP)]
    mixed.write_bytes(good + b"\n".join(poison) + b"\n\xff\xfe\n")
    ran = incentives("backfill", mixed, "--rejects", rejects, "--format", "json", env=stocked)
    assert ran.code == 0
    written = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert len(written) == 6 == sum(ran.document["rejected"].values())
    assert {"not-json", "unknown-type", "conflict", "not-utf8"} <= set(ran.document["rejected"])
    lines = good.count(b"\n")
    assert sorted(record["line"] for record in written) == list(range(lines + 1, lines + 7))
    assert incentives("backfill", mixed, "--strict", env=stocked).code == 1


def test_balances_are_one_object_of_non_zero_accounts(stocked: dict[str, str], events_file: Path) -> None:
    incentives("backfill", events_file, env=stocked)
    balances = incentives("ledger", "balances", "--format", "json", env=stocked).document
    assert all(isinstance(amount, int) and amount != 0 for amount in balances.values())
    assert all(key.endswith("|EUR") for key in balances)
    early = incentives(
        "ledger", "balances", "--as-of", "2026-03-02T08:00:00Z", "--by", "happened", "--format", "json", env=stocked
    )
    assert early.document != balances


def test_a_campaign_file_loads_all_or_nothing_and_errors_name_campaign_field_and_value(
    env: dict[str, str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(sample_shop.CAMPAIGNS.replace("rate_bps = 200", "rate_bps = 20000"))
    ran = incentives("campaigns", "load", bad, env=env)
    assert ran.code == 1
    assert "campaign 'cashback': rate_bps: is 20000" in ran.err
    assert incentives("campaigns", "list", "--format", "json", env=env).document == {"campaigns": []}


def test_a_refused_grant_is_named_and_the_rest_load(stocked: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "more.csv"
    path.write_text(
        "key,customer_id,currency,amount,campaign_id,expires_at\n"
        "a,c1,EUR,500,hello,\n"
        "b,c1,EUR,5.5,hello,\n"
        "c,c1,USD,500,hello,\n"
        "a,c1,EUR,501,hello,\n"
        "d,c2,EUR,700,hello,2027-01-01T00:00:00Z\n"
    )
    ran = incentives("grants", "load", path, "--format", "json", env=stocked)
    assert ran.code == 1
    assert ran.document["granted"] == 2
    assert [(row["line"], row["reason"]) for row in ran.document["refused"]] == [
        (3, "bad-amount"),
        (4, "wrong-currency"),
        (5, "key-taken"),
    ]
    assert "amount is '5.5'" in ran.err


def grant_of(key: str) -> list[str]:
    """The words of a grant of 9 EUR."""
    return f"grant --key {key} --customer-id c9 --currency EUR --amount 900 --campaign-id hello".split()


def test_a_single_grant_and_its_reversal_are_idempotent(stocked: dict[str, str]) -> None:
    give = grant_of("k1")
    assert incentives(*give, "--format", "json", env=stocked).document["result"] == "granted"
    assert incentives(*give, "--format", "json", env=stocked).document["result"] == "already-granted"
    back = ("grant", "reverse", "k1", "--reason", "typed twice", "--format", "json")
    assert incentives(*back, env=stocked).document == {"key": "k1", "returned": 900, "spent": 0, "again": False}
    assert incentives(*back, env=stocked).document["again"] is True
    unknown = incentives("grant", "reverse", "nope", "--reason", "x", env=stocked)
    assert (unknown.code, "unknown-grant" in unknown.err) == (1, True)


def test_expiry_moves_each_lot_once(stocked: dict[str, str]) -> None:
    give = grant_of("k2")
    incentives(*give, "--expires-at", "2026-03-01T00:00:00Z", env=stocked)
    sweep = ("expire", "--as-of", "2026-03-02T00:00:00Z", "--format", "json")
    assert incentives(*sweep, env=stocked).document == {"wallets": 1, "lots": 1, "moved": {"EUR": 900}, "refused": []}
    assert incentives(*sweep, env=stocked).document == {"wallets": 0, "lots": 0, "moved": {}, "refused": []}


@pytest.mark.parametrize(
    ("arguments", "env", "sentence"),
    [
        (("ledger", "verify"), {}, "INCENTIVES_DATABASE_URL is not set"),
        (("ledger", "verify"), {"INCENTIVES_DATABASE_URL": "not a url"}, "INCENTIVES_DATABASE_URL cannot be read"),
        (
            ("consume", "--from", "sqs"),
            {"INCENTIVES_DATABASE_URL": "postgresql://x/y", "AWS_REGION": "", "AWS_DEFAULT_REGION": ""},
            "AWS_REGION is not set",
        ),
        (("consume", "--from", "rabbitmq"), {"INCENTIVES_BATCH_SIZE": "none"}, "INCENTIVES_BATCH_SIZE is 'none'"),
        (("expire", "--as-of", "yesterday"), {}, "'yesterday' is not a time"),
        (("publish", "/nowhere.jsonl", "--to", "sns"), {}, "/nowhere.jsonl"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...], env: dict[str, str], sentence: str
) -> None:
    ran = incentives(*arguments, env=env)
    assert ran.code == 2
    assert sentence in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_a_database_without_a_ledger_is_told_what_to_run(empty_database_url: str) -> None:
    env = {"INCENTIVES_DATABASE_URL": empty_database_url}
    ran = incentives("ledger", "verify", env=env)
    assert (ran.code, "run `incentives db upgrade` first" in ran.err) == (2, True)
    assert incentives("db", "upgrade", env=env).code == 0
    assert incentives("ledger", "verify", env=env).code == 0


def test_a_database_that_is_away_is_one_sentence_and_exit_code_1() -> None:
    ran = incentives("ledger", "verify", env={"INCENTIVES_DATABASE_URL": "postgresql://x@127.0.0.1:1/y"})
    assert ran.code == 1
    assert "Traceback" not in ran.err


def test_statements_are_for_people_and_for_machines(stocked: dict[str, str], events_file: Path) -> None:
    incentives("backfill", events_file, env=stocked)
    order = incentives("order", "s-000000", "--format", "json", env=stocked).document
    assert order["facts"][0]["fact"] == "placing"
    wallet = incentives("wallet", order["customer_id"], "--format", "json", env=stocked).document
    assert wallet["wallets"][0]["currency"] == "EUR"
    assert "placing" in incentives("order", "s-000000", env=stocked).out
    assert incentives("wallet", "nobody", env=stocked).code == 1


def test_help_is_sentences_and_none_is_cut() -> None:
    for path, command, context in every_command():
        text = " ".join((command.help or "").split())
        assert text.endswith("."), path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert (parameter.help or "").endswith("."), f"{path} {parameter.opts}"
        if isinstance(command, Group):
            shown = " ".join(command.get_help(context).split("Commands:")[1].split())
            for name in command.list_commands(context):
                sentence = command.summary_of(context, name)
                assert sentence.endswith("."), f"{path} {name}"
                assert f"{name} {sentence}" in shown
            assert "..." not in shown


def test_every_command_that_prints_a_result_has_json() -> None:
    for path, command, _ in every_command():
        forms = [parameter for parameter in command.params if "--format" in parameter.opts]
        assert isinstance(command, Group) == isinstance(command, click.Group), path
        if not isinstance(command, click.Group):
            assert forms, path
            assert isinstance(forms[0].type, click.Choice)
            assert set(forms[0].type.choices) == ({"hledger"} if path == ("ledger", "export") else {"text", "json"})


def test_no_text_of_a_person_is_taken_unchecked() -> None:
    for path, command, _ in every_command():
        for parameter in command.params:
            assert not isinstance(parameter.type, click.types.StringParamType), f"{path} {parameter.name}"
    ran = incentives("wallet", "c\udcff")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith("Error: Invalid value for 'CUSTOMER': 'c\\udcff' is not UTF-8\n")


@pytest.mark.parametrize(
    ("arguments", "settings", "named"),
    [
        (
            ["waiting"],
            {"INCENTIVES_DATABASE_URL": "postgresql://u:geheim@127.0.0.1:1,127.0.0.1:2/db"},
            "INCENTIVES_DATABASE_URL leads to postgresql://127.0.0.1:1,127.0.0.1:2/db.",
        ),
        (
            ["topology", "check"],
            {"INCENTIVES_RABBITMQ_URL": "amqp://u:geheim@127.0.0.1:1/%2F"},
            "INCENTIVES_RABBITMQ_URL leads to amqp://127.0.0.1:1/%2F.",
        ),
        (
            ["topology", "check"],
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "eu-central-1"},
            "AWS_ENDPOINT_URL leads to http://127.0.0.1:1.",
        ),
    ],
)
def test_a_part_that_is_away_is_named_by_its_setting_and_never_with_its_password(
    arguments: list[str], settings: dict[str, str], named: str
) -> None:
    unset = {"INCENTIVES_RABBITMQ_URL": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_ENDPOINT_URL": ""}
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "geheim"}
    ran = incentives(*arguments, env=unset | keys | settings)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("Error: ")
    assert named in ran.err.splitlines()
    assert "geheim" not in ran.err
