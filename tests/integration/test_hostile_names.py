"""Every command prints what came from outside literally, in text and in JSON, whatever a sender, a shop or an operator wrote.

The walk goes over the program's own tree of commands: one that is added must say here how it is tried.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from incentive_fleet.brokers import declare
from incentive_fleet.cli.root import run
from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.console_logins import begin_login
from incentive_fleet.ledger.export import account_of
from incentive_fleet.literal import literal
from tests.brokers_and_workers import environment_of, settings_of
from tests.command import Ran, every_command, incentives
from tests.dead_letter_world import LetterDatabase, arrival
from tests.domain import terms
from tests.event_bodies import DELIVERY, ORDER, REFUND, Document

# What an id may be: anything but control characters.
NAMES = [
    "[/x]",
    "[link=https://example.org]paid[/link]",
    "[bold red]a[/]",
    ":warning: {0} %s %(x)s $HOME `id`",
    "a  b ",
    "(virtual) ; c",
    "--help",
    "wallet:bob|EUR",
    "q\"'\\u202e\\",
    "Jose\u0301 \u5f20\u4f1f \u05d3\u05d5\u05d3 \U0001f600",
    "\u202etxt.exe\u2066",
    "two\u2028lines\u2029here",
    "\ufeffzero\u200bwidth\u00ad\u200d",
    "tag\U000e0041 private\ue000 unassigned\u0378 blank\u00a0\u3164",
    "x" * 199 + "\u202e",
]
# What bodies, headers, details, actors and file names may be besides.
CONTROLS = "\x1b]0;owned\x07\x1b[2J\x9b31m\x85\x7f\r\b\u202e[/x]"
FILE = CONTROLS.replace("/", "|")


@dataclass(frozen=True, slots=True)
class World:
    """A shop full of such names: settings, a folder for files, and one line of the program in it."""

    env: dict[str, str]
    folder: Path
    call: Callable[..., Ran]


def events() -> Iterator[Document]:
    for n, name in enumerate(NAMES):
        line = {"line_id": name, "sku": name, "category": name, "quantity": 1, "unit_price": 1_000}
        data = {"order_id": name, "customer_id": name, "lines": [line], "coupons": [name, f"?{name[:190]}"]}
        yield _event(ORDER, f"p-{n}", name, **data)
        yield _event(DELIVERY, f"d-{n}", name, order_id=name, delivery_id=name, undelivered=[])
        odd = [{"line_id": f"?{name[:190]}", "quantity": 1}]  # a line that nobody bought
        yield _event(REFUND, f"r-{n}", name, order_id=name, refund_id=name, lines=odd)
        yield _event(REFUND, f"w-{n}", name, order_id=f"!{name[:190]}", refund_id=name, lines=odd)  # never placed


def _event(kind: Document, id: str, source: str, **data: Any) -> Document:
    fields = kind["data"] | data
    return kind | {
        "id": f"{id} {source[:150]}",
        "source": f"/{source[:150]}",
        "subject": fields["order_id"],
        "data": fields,
    }


def campaigns() -> str:
    window = 'currency = "EUR"\nstarts_at = 2026-01-01T00:00:00Z\nends_at = 2030-01-01T00:00:00Z'
    quoted = [json.dumps(name, ensure_ascii=False) for name in NAMES]
    coupons = [
        f'[[campaign]]\nid = {name}\nkind = "coupon"\ncode = {name}\nrate_bps = 100\n{window}' for name in quoted
    ]
    grants = f'[[campaign]]\nid = "[/grant]\u202e"\nkind = "grant"\n{window}'
    earn = f'[[campaign]]\nid = "[/earn]\u202e"\nkind = "earn"\nrate_bps = 500\nvalid_days = 300\n{window}'
    return "\n\n".join([*coupons, grants, earn])


def dead_letters(database: LetterDatabase) -> None:
    """Bodies, reasons, details and headers of somebody who writes to the queues by himself."""
    hostile = {"fleet-reason": f"r{CONTROLS}", "fleet-detail": f"{CONTROLS}\n{NAMES[0]}", f"h{CONTROLS}": CONTROLS}
    bodies = [json.dumps(_event(ORDER, "x", NAMES[0], currency="XXX")).encode(), CONTROLS.encode(), b"\xff\xfe\x1b[2J"]
    for n, body in enumerate(bodies):
        database.keep(arrival(body, name=str(n), queue=f"q{CONTROLS}", headers=hostile))
    database.keep(
        arrival(
            json.dumps(_event(REFUND, "good", NAMES[0], order_id="[/later]\u202e", refund_id="a")).encode(), name="9"
        )
    )


@pytest.fixture
def world(
    database_url: str, rabbitmq: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> World:
    settings = settings_of(f"h{uuid.uuid4().hex[:8]}", rabbitmq_url=rabbitmq.url).model_copy(
        update={"database_url": database_url, "aws_region": None}
    )
    declare.apply(settings)
    env = environment_of(
        settings, INCENTIVES_ACTOR=f"ann{CONTROLS}", COLUMNS="80", AWS_REGION="", AWS_DEFAULT_REGION=""
    )
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def call(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["incentives", *map(str, arguments)])
        try:
            code = run()
        except SystemExit as ended:  # as a program would
            code = ended.code if isinstance(ended.code, int) else 1
        return Ran(code, *capfd.readouterr())

    folder = tmp_path / "[bold]\u202efolder\u2028"
    folder.mkdir()
    (folder / "campaigns.toml").write_text(campaigns(), encoding="utf-8")
    (folder / "events.jsonl").write_text("\n".join(map(json.dumps, events())), encoding="utf-8")
    assert call("campaigns", "load", folder / "campaigns.toml").code == 0
    assert call("backfill", folder / "events.jsonl").code == 0
    dead_letters(LetterDatabase(database_url))
    return World(env, folder, call)


def check(ran: Ran, *names: str) -> Ran:
    """No traceback, nothing raw, and each of the names stands there as it is."""
    assert "Traceback" not in ran.out + ran.err
    for stream in (ran.out, ran.err):
        for line in stream.split("\n"):
            assert literal(line) == line
    try:
        texts = list(_texts(json.loads(ran.out)))
    except ValueError:
        words = ran.out + ran.err
        assert [name for name in names if literal(name) not in words] == []
    else:
        assert [name for name in names if not any(name in text for text in texts)] == []
    return ran


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def both(world: World, *arguments: str | Path, names: list[str] | None = None) -> None:
    """In text and in JSON; what a command does twice it must bear."""
    command, rest = [one for one in arguments if one != "--"], []
    if "--" in arguments:
        at = arguments.index("--")
        command, rest = list(arguments[:at]), list(arguments[at:])
    for form in ("text", "json"):
        ran = check(world.call(*command, "--format", form, *rest), *(names or []))
        assert form == "text" or not ran.out or isinstance(json.loads(ran.out), dict)


def try_ledger(world: World) -> None:
    accounts = [f"wallet:{name}" for name in NAMES]
    both(world, "ledger", "balances", names=accounts)
    both(world, "ledger", "verify")


def try_export(world: World) -> None:
    ran = check(world.call("ledger", "export"))
    assert ran.out.isascii()
    declared = {account_of(line.split()[1]) for line in ran.out.splitlines() if line.startswith("account ")}
    assert {f"wallet:{name}" for name in NAMES} <= declared
    journal = world.folder.parent / "journal"
    journal.write_text(ran.out)
    subprocess.run(["hledger", "-f", journal, "check", "--strict"], check=True, capture_output=True)


def try_statements(world: World) -> None:
    for name in NAMES:
        both(world, "wallet", "--", name, names=[name])
        both(world, "order", "--", name, names=[name, f"?{name[:190]}"])
        both(world, "wallet", "--", f"nobody {name[:150]}")
        both(world, "order", "--", f"nothing {name[:150]}")


def try_lists(world: World) -> None:
    both(world, "waiting", "--limit", "100", names=[f"!{name[:190]}" for name in NAMES])
    both(world, "anomalies", names=NAMES)
    both(world, "campaigns", "list", names=NAMES)
    both(world, "status", "--actor", CONTROLS)


def try_resolve(world: World) -> None:
    subject = f"?{NAMES[0]}"
    found = json.loads(world.call("anomalies", "--format", "json").out)["anomalies"]
    first = next(one for one in found if one["order_id"] == NAMES[0] and subject in one["subject"])
    words = (NAMES[0], first["reason"], first["subject"])
    for form in ("text", "json"):
        check(world.call("anomalies", "resolve", "--reason", CONTROLS, "--format", form, "--", *words))
    both(world, "anomalies", "resolve", "--reason", NAMES[10], "--", *NAMES[10:13])
    both(world, "anomalies", "--all", names=NAMES)


def try_grants(world: World) -> None:
    rows = [
        f'"{CONTROLS}","{NAMES[10]}",EUR,1,x,',
        *(f'"k{n}","{NAMES[n]}",EUR,5,"[/grant]\u202e",' for n in (0, 10, 11, 12)),
    ]
    for name in ("grants.csv", f"no{FILE}grants.csv"):
        text = "\n".join(["key,customer_id,currency,amount,campaign_id,expires_at", *rows])
        (world.folder / name).write_text(text if name == "grants.csv" else CONTROLS, encoding="utf-8")
        both(world, "grants", "load", world.folder / name, names=["grants.csv"] if name != "grants.csv" else [])
    one = ["--customer-id", NAMES[10], "--currency", "EUR", "--amount", "5", "--campaign-id", "[/grant]\u202e"]
    for name in NAMES:
        both(world, "grant", f"--key={name}", *one, names=[name])
        both(world, "grant", "reverse", "--reason", NAMES[10], "--", name, names=[name])
    both(world, "grant", "reverse", "--reason", CONTROLS, "--", NAMES[10])
    both(world, "grant", f"--key={CONTROLS}", *one)
    both(
        world,
        "grant",
        "--key=a",
        "--customer-id",
        "b",
        "--currency",
        NAMES[10],
        "--amount",
        NAMES[11],
        "--campaign-id",
        "c",
    )
    both(world, "grant", "reverse", "--reason", "x", "--", NAMES[14][::-1])


def try_files(world: World) -> None:
    hostile = world.folder / f"a{FILE}.jsonl"
    hostile.write_bytes(
        b"\n".join(json.dumps(one).encode() for one in events()) + f"\n{CONTROLS}\n".encode() + b'{"\xff":1}'
    )
    both(world, "backfill", hostile, "--rejects", world.folder / "rejects")
    assert all(literal(line) == line for line in (world.folder / "rejects").read_text().split("\n"))
    both(world, "backfill", world.folder / FILE)
    both(world, "publish", hostile, "--to", "rabbitmq", names=["not-json"])
    both(world, "publish", hostile, "--to", "rabbitmq", "--skip-bad")
    hostile.write_text(campaigns().replace('code = "[/x]"', f'code = "[/x]"\n"{NAMES[10]}" = "[/x]"\nkind2 = 3'))
    both(world, "campaigns", "load", hostile, names=[NAMES[10]])
    hostile.write_text(CONTROLS)
    both(world, "campaigns", "load", hostile)


def try_dead_letters(world: World) -> None:
    both(world, "dlq", "list", "--limit", "10", names=[f"q{CONTROLS}", f"r{CONTROLS}"])
    both(world, "dlq", "list", "--group", names=[f"q{CONTROLS}", f"r{CONTROLS}"])
    both(world, "dlq", "list", "--reason", f"nonsense{CONTROLS}", "--queue", NAMES[10])
    for number in "1234":
        both(world, "dlq", "show", "--effect", number)
    both(world, "dlq", "show", "1", names=[NAMES[0], f"h{CONTROLS}", f"r{CONTROLS}"])
    both(world, "dlq", "edit", "1", "--set", "data.currency=EUR", "--reason", CONTROLS)
    both(world, "dlq", "edit", "1", "--set", f"data.{CONTROLS}=EUR")
    both(world, "dlq", "edit", "2", "--set", f"data.x={CONTROLS}")
    both(world, "dlq", "edit", "1", "--original")
    both(world, "dlq", "replay", "--dry-run", "--all")
    both(world, "dlq", "replay", "--all")  # nobody is there to confirm it
    both(world, "dlq", "replay", "--all", "--yes", "--because", CONTROLS)
    both(world, "dlq", "discard", "1", "2", "--reason", f"why{CONTROLS}", "--yes")
    both(world, "dlq", "restore", "1", "--reason", CONTROLS)
    both(world, "dlq", "history", names=[f"why{CONTROLS}", f"ann{CONTROLS}"])


def try_many_letters(world: World) -> None:
    both(world, "dlq", "groups", names=[f"q{CONTROLS}", f"r{CONTROLS}"])
    both(world, "dlq", "groups", "--source", CONTROLS, "--group", "1")
    both(world, "dlq", "edit", "--all", "--set", f"data.x={CONTROLS}", "--dry-run")
    both(world, "dlq", "edit", "--all", "--append", f"data.coupons={CONTROLS}", "--because", CONTROLS, "--yes")
    values = world.folder / f"values{FILE}.csv"
    values.write_text(f"order_id,data.x\n{CONTROLS},{CONTROLS}\n", encoding="utf-8")
    both(world, "dlq", "edit", "--all", "--from-file", values, "--yes")
    both(world, "dlq", "undo", "1", "--because", CONTROLS)
    both(
        world, "dlq", "redirect", "--all", "--to", "sqs", "--to-queue", f"to{CONTROLS}", "--because", CONTROLS, "--yes"
    )
    both(world, "dlq", "runs", names=[f"ann{CONTROLS}"])
    for command in ("watch", "stop", "resume", "approve"):
        both(world, "dlq", command, "1")
    for number in "1234":
        both(world, "dlq", "conflict", number, "--order-id", CONTROLS, "--campaign-id", CONTROLS)
    exported = check(world.call("dlq", "export", "--all"))
    assert exported.out.isascii()
    file = world.folder / f"letters{FILE}.jsonl"
    file.write_text(exported.out)
    both(world, "dlq", "import", file, "--because", CONTROLS)
    file.write_text(json.dumps({"format": CONTROLS, "transport": CONTROLS}))
    both(world, "dlq", "import", file)
    both(world, "dlq", "purge", "--closed", "--older-than", "1d", "--because", CONTROLS, "--yes")


def try_the_fleet(world: World) -> None:
    """What serves is a process of its own: it sets handlers of signals and logs."""
    junk = world.folder / f"junk{FILE}.jsonl"
    bodies = [*events(), {"specversion": "1.0", "type": CONTROLS, "id": CONTROLS}, {NAMES[10]: CONTROLS}]
    junk.write_text("\n".join(map(json.dumps, bodies)), encoding="utf-8")
    check(world.call("publish", junk, "--to", "rabbitmq", "--raw"))
    env = world.env | {"INCENTIVES_SERVE_PORT": "0"}
    for form, *command in (
        ("text", "consume", "--from", "rabbitmq", "--until-idle", "0.2", "--no-collect"),
        ("json", "dlq", "collect", "--until-idle", "0.2"),
        ("json", "relay", "--until-idle", "0.2"),
        ("text", "answer-quotes", "--from", "rabbitmq", "--until-idle", "0.2"),
        ("json", "serve", "--until-idle", "0.2"),
    ):
        ran = check(incentives(*command, "--format", form, env=env))
        assert ran.code == 0
        assert all(isinstance(json.loads(line), dict) for line in ran.err.splitlines())
    both(world, "expire", "--as-of", "2029-01-01T00:00:00Z")
    both(world, "expire", "--as-of", NAMES[10])


def try_groceries(world: World) -> None:
    """Codes, audiences, holds, quotes and what was told."""
    pool = terms("coupon", "[/pool]\u202e", codes="pool", amount=5)
    (world.folder / "pool.toml").write_text(pool, encoding="utf-8")
    both(world, "campaigns", "load", world.folder / "pool.toml")
    codes = world.folder / f"codes{FILE}.csv"
    rows = [f'"[/pool]\u202e","{name}","{name}",' for name in NAMES[10:14]]
    codes.write_text("\n".join(["campaign_id,code,customer_id,expires_at", *rows]), encoding="utf-8")
    for text in (None, f"code\n{CONTROLS}", f'campaign_id,code\n"{NAMES[10]}","{NAMES[11]}"', CONTROLS):
        if text is not None:
            codes.write_text(text, encoding="utf-8")
        both(world, "codes", "load", codes)
        both(world, "codes", "revoke", codes, "--reason", CONTROLS)
        for act in ("load", "remove"):
            both(world, "audiences", act, codes)
    both(world, "codes", "generate", "[/pool]\u202e", "--batch", NAMES[10], "--count", "2")
    both(world, "codes", "generate", NAMES[10], "--batch", CONTROLS, "--count", "2")
    check(world.call("codes", "export", "[/pool]\u202e", "--batch", NAMES[10]))
    check(world.call("codes", "export", CONTROLS, "--batch", CONTROLS))
    for name in NAMES:
        both(world, "codes", "show", "--", name)
        for act in ("hold", "release"):
            both(world, "wallets", act, "--reason", CONTROLS, "--", name)
        both(world, "orders", "finalize", "--as-placed", "--reason", CONTROLS, "--", name)
    both(world, "remind", "--as-of", NAMES[10], "--days", "5")
    both(world, "remind", "--as-of", "2029-01-01T00:00:00Z", "--days", "5")
    quotes = world.folder / f"quotes{FILE}.jsonl"
    line = {"line_id": NAMES[10], "sku": NAMES[11], "quantity": 1, "unit_price": 100}
    asked = {
        "quote_id": NAMES[12],
        "customer_id": NAMES[13],
        "currency": "EUR",
        "at": "2026-03-01T00:00:00Z",
        "lines": [line],
    }
    envelope = {"specversion": "1.0", "id": NAMES[10], "source": NAMES[11], "time": "2026-03-01T00:00:00Z"}
    request = envelope | {"type": "incentives-quote-requested.v1", "subject": NAMES[12], "data": asked}
    quotes.write_text("\n".join(map(json.dumps, (request, {NAMES[10]: CONTROLS}))), encoding="utf-8")
    check(world.call("quote", quotes))
    check(world.call("outcomes", "export"))


def try_tokens(world: World) -> None:
    """A name is what people can see; who made and who revoked it is the actor, whose name is CONTROLS here."""
    both(world, "tokens", "create", "--name", CONTROLS, "--role", "incentives_viewer")
    both(world, "tokens", "create", "--name", NAMES[0], "--role", CONTROLS)
    for name in NAMES:
        both(world, "tokens", "create", "--role", "incentives_viewer", "--name", name)
        both(world, "tokens", "revoke", "--", name)
    assert world.call("tokens", "create", "--name", "[/x]till", "--role", "incentives_viewer").code == 0
    both(world, "tokens", "list", names=["[/x]till"])
    [token, *_] = json.loads(world.call("tokens", "list", "--format", "json").out)["tokens"]
    both(world, "tokens", "revoke", token["token_id"], names=[f"ann{CONTROLS}"])


def try_logins(world: World) -> None:
    """The issuer says how a person is called."""
    at = datetime.now(UTC)
    with closing(connect(world.env["INCENTIVES_DATABASE_URL"])) as connection:
        for name in NAMES:
            begin_login(connection, name, ["incentives_viewer"], at, at + timedelta(hours=1))
    both(world, "logins", "list", names=NAMES)
    for name in (*NAMES, CONTROLS):
        both(world, "logins", "end", "--", name, names=[name])
    assert json.loads(world.call("logins", "list", "--format", "json").out)["logins"] == []
    both(world, "logins", "list", "--ended", names=NAMES)


def try_the_rest(world: World) -> None:
    """Parts, schema and topology take nothing from outside but what the operator types and the environment says."""
    both(world, "db", "upgrade")
    both(world, "doctor")
    both(world, "topology", "check")
    both(world, "topology", "apply")
    for act in ("write", "check"):
        both(world, "schemas", act, "--out", world.folder / FILE)
    check(world.call("schemas", "graphql"))
    both(world, "down", "--state", world.folder / "[/x]state\u202e")
    both(world, "up", "--state", world.folder / "events.jsonl", names=["events.jsonl"])
    both(world, "demo", "--orders", f"[/x]{CONTROLS}")
    both(world, CONTROLS)
    both(world, "wallet", f"--{CONTROLS}")
    both(world, "topology", NAMES[10])


TRIALS: dict[str, Callable[[World], None]] = {
    "anomalies": try_lists,
    "anomalies resolve": try_resolve,
    "backfill": try_files,
    "campaigns list": try_lists,
    "campaigns load": try_files,
    "consume": try_the_fleet,
    "db upgrade": try_the_rest,
    "demo": try_the_rest,
    "dlq collect": try_the_fleet,
    "dlq discard": try_dead_letters,
    "dlq edit": try_dead_letters,
    "dlq history": try_dead_letters,
    "dlq list": try_dead_letters,
    "dlq watch": try_many_letters,
    "dlq undo": try_many_letters,
    "dlq stop": try_many_letters,
    "dlq runs": try_many_letters,
    "dlq resume": try_many_letters,
    **dict.fromkeys(
        (
            *("audiences load", "audiences remove", "codes export", "codes generate", "codes load", "codes revoke"),
            *("codes show", "orders finalize", "outcomes export", "quote", "remind", "wallets hold", "wallets release"),
        ),
        try_groceries,
    ),
    "doctor": try_the_rest,
    "dlq redirect": try_many_letters,
    "dlq purge": try_many_letters,
    "dlq import": try_many_letters,
    "dlq groups": try_many_letters,
    "dlq export": try_many_letters,
    "dlq conflict": try_many_letters,
    "dlq approve": try_many_letters,
    "dlq replay": try_dead_letters,
    "dlq restore": try_dead_letters,
    "dlq show": try_dead_letters,
    "down": try_the_rest,
    "expire": try_the_fleet,
    "grant": try_grants,
    "grant reverse": try_grants,
    "grants load": try_grants,
    "ledger balances": try_ledger,
    "ledger export": try_export,
    "ledger verify": try_ledger,
    "logins end": try_logins,
    "logins list": try_logins,
    "order": try_statements,
    "publish": try_files,
    "relay": try_the_fleet,
    "answer-quotes": try_the_fleet,
    "serve": try_the_fleet,
    "schemas check": try_the_rest,
    "schemas graphql": try_the_rest,
    "schemas write": try_the_rest,
    "status": try_lists,
    "topology apply": try_the_rest,
    "tokens create": try_tokens,
    "tokens list": try_tokens,
    "tokens revoke": try_tokens,
    "topology check": try_the_rest,
    "up": try_the_rest,
    "waiting": try_lists,
    "wallet": try_statements,
}


def test_each_command_is_tried() -> None:
    runnable = {" ".join(path) for path, command, _ in every_command() if command.callback and path}
    groups = {
        "audiences",
        "campaigns",
        "codes",
        "db",
        "dlq",
        "grants",
        "ledger",
        "orders",
        "outcomes",
        "schemas",
        "topology",
    }
    groups |= {"logins", "tokens", "wallets"}  # print their help and no more
    assert runnable - groups == set(TRIALS)


@pytest.mark.parametrize("trial", sorted({trial.__name__: trial for trial in TRIALS.values()}))
def test_what_came_from_outside_is_printed_literally(world: World, trial: str) -> None:
    {one.__name__: one for one in TRIALS.values()}[trial](world)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_encoding_without_a_character_shows_its_escape(world: World, encoding: str) -> None:
    accounts = {f"wallet:{name}" for name in NAMES}
    for form in ("text", "json"):
        done = subprocess.run(
            [sys.executable, "-m", "incentive_fleet.cli.main", "ledger", "balances", "--format", form],
            env=world.env | {"PYTHONIOENCODING": encoding},
            capture_output=True,
            check=True,
        )
        out = done.stdout.decode(encoding)
        if form == "json":
            assert {f"{account}|EUR" for account in accounts} <= set(json.loads(out))
        else:
            shown = {literal(account).encode(encoding, "backslashreplace").decode(encoding) for account in accounts}
            assert [account for account in shown if account not in out] == []


def test_a_crash_of_ours_is_printed_literally_too() -> None:
    program = f"from incentive_fleet.cli import printing; printing.prepare_streams(); raise ValueError({CONTROLS!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert all(literal(line) == line for line in done.stderr.split("\n"))
    assert literal(CONTROLS) in done.stderr
