"""The drain task: dead letters of eleven causes on both brokers, and the commands by which one operator empties them all.

It keeps the letters as a collector would, with the reasons that a consumer gives, and runs the command line as people do. It
measures wall clock and counts commands.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from click.testing import CliRunner

from incentive_fleet.brokers.messages import Arrival
from incentive_fleet.cli.root import cli
from incentive_fleet.errors import Malformed
from incentive_fleet.events.codec import decode
from incentive_fleet.ledger.batch import apply_events
from incentive_fleet.ledger.session import Session
from tests.brokers_and_workers import SOURCES
from tests.command import Ran, incentives
from tests.dead_letter_world import LetterWorld, arrival, cloud_event, order

FAILURE = {
    "attempts": 5,
    "error_class": "builtins.KeyError",
    "traceback": 'File "/srv/incentive_fleet/incentives/placing.py", line 71, in decide\n    terms[code]\n',
    "first_at": "2026-05-04T11:00:00+00:00",
    "last_at": "2026-05-04T11:10:00+00:00",
    "host": "worker-3",
}


def without(body: bytes, *fields: str) -> bytes:
    """The event without fields of its data."""
    document = json.loads(body)
    for name in fields:
        del document["data"][name]
    return json.dumps(document).encode()


def refund(number: int, reason: str) -> bytes:
    """The one unit of an order that was applied goes back."""
    lines = [{"line_id": "1", "quantity": 1, "reason": reason}]
    data = {
        "refund_id": f"r-{number}",
        "order_id": f"o-done-{number}",
        "currency": "EUR",
        "refunded_at": "2026-01-12T12:00:00Z",
    }
    return cloud_event(f"r-{number}", "order-refunded.v1", {**data, "lines": lines})


@dataclass(frozen=True, slots=True)
class Cause:
    """One way to be given up, how many of a hundred letters are so, and what mends it: nothing, fields, or a discard."""

    name: str
    percent: float
    body: Callable[[int], bytes]
    mend: Sequence[str] | None = None  # of `edit`; None: replay as it is
    discard: bool = False
    headers: Callable[[int], dict[str, str]] | None = None  # None: what the consumer says of the body


LINE = {"line_id": "1", "sku": "a", "quantity": 1, "unit_price": 1000}


def unexpected(number: int) -> dict[str, str]:
    """What a consumer says of an order that met a bug."""
    failure = {**FAILURE, "message": f"'CODE-{number}'"}
    return {"fleet-reason": "unexpected-error", "fleet-detail": "KeyError", "fleet-failure": json.dumps(failure)}


CAUSES = (
    Cause("currency", 20, lambda n: order(f"cur-{n}", currency="UKP"), ("--set", "data.currency=EUR")),
    Cause("refund reason", 10, lambda n: refund(n, "unhappy"), ("--set", "data.lines[0].reason=returned")),
    Cause("no customer", 7.5, lambda n: without(order(f"who-{n}"), "customer_id"), ("--from-file", "customers.csv")),
    Cause(
        "quantity",
        5,
        lambda n: order(f"qty-{n}", lines=[{**LINE, "quantity": 0}]),
        ("--set", "data.lines[0].quantity=1"),
    ),
    Cause("null coupons", 5, lambda n: order(f"cpn-{n}", coupons=None), ("--unset", "data.coupons")),
    Cause(
        *("no offset", 5, lambda n: order(f"utc-{n}", placed_at="2026-01-10T12:00:00")),
        ("--set", "data.placed_at=2026-01-10T12:00:00Z"),
    ),
    Cause("no JSON", 10, lambda n: b'{"specversion": "1.0", "id": %d' % n, discard=True),
    Cause("test type", 5, lambda n: order(f"typ-{n}").replace(b"order-placed.v1", b"order-tested.v1"), discard=True),
    Cause(
        *("conflict", 5, lambda n: order(f"done-{n}", customer_id="somebody-else")),
        discard=True,
        headers=lambda n: {"fleet-reason": "conflict", "fleet-detail": f"event 'e-done-{n}': its identity is taken"},
    ),
    Cause("a bug", 15, lambda n: order(f"bug-{n}"), headers=unexpected),
    Cause(
        "broker",
        12.5,
        lambda n: order(f"brk-{n}"),
        headers=lambda n: {"fleet-reason": "broker-redrive", "fleet-detail": "too often"},
    ),
)


def _here(words: list[str], environment: dict[str, str]) -> Ran:
    done = CliRunner().invoke(cli, words, env=environment)
    return Ran(done.exit_code, done.stdout, f"{done.stderr}{done.exception or ''}")


@dataclass
class Drain:
    """The world, the letters in it, and what the operator did."""

    world: LetterWorld
    folder: Path
    letters: int
    processes: bool  # a command is a process, as for people; else it saves the start
    commands: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, cause: Cause) -> int:
        """How many letters are so."""
        return round(self.letters * cause.percent / 100)

    @property
    def edited(self) -> int:
        """How many must be edited."""
        return sum(self.count(cause) for cause in CAUSES if cause.mend)

    def stock(self) -> None:
        """Orders that were applied, and the letters; customers' ids as the shop sends them later, in a file."""
        done = max(self.count(cause) for cause in CAUSES if cause.name in ("refund reason", "conflict"))
        with closing(Session(self.world.url)) as session:
            for start in range(0, done, 1_000):
                events = [decode(order(f"done-{n}")) for n in range(start, min(start + 1_000, done))]
                apply_events(session, events)
        copies = [self._copy(cause, n) for cause in CAUSES for n in range(self.count(cause))]
        for start in range(0, len(copies), 500):
            self.world.keep(*copies[start : start + 500], at=datetime.now(UTC))
        rows = [f"o-who-{n},c-who-{n}" for n in range(self.count(CAUSES[2]))]
        (self.folder / "customers.csv").write_text("\n".join(["order_id,data.customer_id", *rows]))

    def _copy(self, cause: Cause, number: int) -> Arrival:
        source = SOURCES[number % 2]
        body = cause.body(number)
        type_ = "order-refunded.v1" if cause.name == "refund reason" else "order-placed.v1"
        queue = self.world.brokers.queue_of(source, type_)
        envelope: dict[str, Any] = {"attributes": {}} if source == "sqs" else {"headers": {}, "properties": {}}
        headers = self._told(body) if cause.headers is None else cause.headers(number)
        name = f"{cause.name}-{number}"
        return arrival(body, name=name, queue=queue, transport=source, envelope=envelope, headers=headers)

    @staticmethod
    def _told(body: bytes) -> dict[str, str]:
        try:
            decode(body)
        except Malformed as error:
            return {"fleet-reason": error.reason, "fleet-detail": error.detail}
        raise AssertionError(f"{body!r} is a valid event")

    def type(self, *arguments: str, code: int = 0) -> Ran:
        """What the operator types."""
        self.commands.append(" ".join(("incentives", "dlq", *arguments)))
        words, environment = (
            ["dlq", *arguments, "--format", "json"],
            {**self.world.environment, "INCENTIVES_ACTOR": "ann"},
        )
        ran = incentives(*words, env=environment) if self.processes else _here(words, environment)
        assert ran.code == code, f"{self.commands[-1]}: {ran.code} {ran.err} {ran.out[-500:]}"
        return ran

    def run(self) -> None:
        """From the list of groups to the empty one."""
        began = time.monotonic()
        groups = {self._cause_of(group["example"]): group for group in self.type("groups").document["groups"]}
        assert len(groups) == len(CAUSES)
        for cause in CAUSES:
            group = groups[cause.name]
            assert group["count"] == self.count(cause), cause.name
            chosen = ("--group", str(group["group"]))
            if cause.discard:
                self.type("discard", *chosen, "--because", f"INC-7: {cause.name}", "--yes")
            elif cause.mend:
                mend = [str(self.folder / word) if word.endswith(".csv") else word for word in cause.mend]
                preview = self.type("edit", *chosen, *mend, "--dry-run").document
                assert (preview["passed"], preview["refused"]) == (self.count(cause), 0)
                self.type("edit", *chosen, *mend, "--because", f"INC-7: {cause.name}", "--yes")
        replayed = self.type("replay", "--edited", "--because", "INC-7", "--yes").document
        assert (replayed["replayed"], replayed["refused"]) == (self.edited, 0)
        self.type("replay", "--not-edited", "--because", "INC-7", "--yes")
        assert self.type("list").document["total"] == 0
        self.seconds = time.monotonic() - began

    def _cause_of(self, letter_id: int) -> str:
        return self.world.letter(letter_id).arrival.rpartition("-")[0]

    def judge(self) -> None:
        """Once the fleet has consumed what was replayed: everything has its effect once, and the trail is whole."""
        replayed = sum(self.count(cause) for cause in CAUSES if not cause.discard)
        counts = sum((self.world.consume(source) for source in SOURCES), Counter[str]())
        assert counts == {"applied": replayed}, counts
        with psycopg.connect(self.world.url) as owner:
            acts: dict[str, int] = dict(
                owner.execute("SELECT act, count(*)::int FROM dead_letter_audit GROUP BY act").fetchall()
            )
            open_ = owner.execute("SELECT count(*) FROM dead_letters WHERE status IN ('open', 'replaying')").fetchone()
        assert open_ == (0,)
        assert acts == {
            "collected": self.letters,
            "edited": self.edited,
            "discarded": self.letters - replayed,
            "claimed": replayed,
            "sent": replayed,
        }
