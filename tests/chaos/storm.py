"""A storm: a stream of good and bad messages over both brokers while a seeded schedule of faults hits everything.

The stream is shuffled, a third of it comes twice, perhaps by the other broker. What a storm must leave behind is judged by
`judge`: the balances of a calm run, a sound ledger, empty queues, and each bad message in the dead letters once.
"""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from incentive_fleet.events.codec import decode
from tests.brokers_and_workers import SOURCES, Brokers, Source
from tests.chaos.faults import KINDS, SLOW, Site
from tests.chaos.poison import Poison, conflicts_with, lasting
from tests.shop import balances, faults

CHUNK = 20  # messages published at a time
SETTLE_S = 300.0  # from the last fault to the last fact
IDLE = "2"
CONTESTED = (b'"order-placed.v1"', b'"order-finalized.v1"')
# A worker that was killed while the fleet drained is not started again, and the fleet says so.
EXPECTED_ERRORS = {"worker given up"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a storm is made of; the same for the same seed, but for what the machine's speed decides."""

    seed: int
    seconds: float  # of faults and publishing; the faults go on until there were enough
    faults_least: int
    gap_s: tuple[float, float]  # between two faults
    poison: int
    conflicts: int


@dataclass(slots=True)
class Storm:
    """One run. `faults` counts what was hurt, by kind."""

    plan: Plan
    site: Site
    brokers: Brokers
    bodies: list[bytes]  # the good messages, once each
    url: str  # the database's address past every proxy
    faults: Counter[str] = field(default_factory=Counter)
    published: Counter[str] = field(default_factory=Counter)
    poisoned: list[tuple[Source, Poison]] = field(default_factory=list)
    problems: list[BaseException] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Publish and hurt, then let everything come to rest. Raises what went wrong on the way."""
        self.site.fleet.start()
        sender = threading.Thread(target=self._guarded, args=(self._send,), name="sender")
        sender.start()
        try:
            self._hurt()
        finally:
            self.over.set()
            self.site.mend(all_of_it=True)
            sender.join(SETTLE_S)
        if self.problems:
            raise self.problems[0]
        self._come_to_rest()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.problems.append(error)

    def _hurt(self) -> None:
        chance = random.Random(self.plan.seed)
        until = time.monotonic() + self.plan.seconds
        kinds: list[str] = []
        while (time.monotonic() < until or self.faults.total() < self.plan.faults_least) and not self.problems:
            kinds = kinds or _round(chance)
            kind = kinds.pop()
            if KINDS[kind](self.site):
                self.faults[kind] += 1
            next_at = time.monotonic() + chance.uniform(*self.plan.gap_s)
            while (left := next_at - time.monotonic()) > 0:
                soonest = min((due for due, _ in self.site.due), default=next_at)
                self.over.wait(max(0.01, min(left, soonest - time.monotonic())))
                self.site.mend()

    def _send(self) -> None:
        chance = random.Random(self.plan.seed + 1)
        stream = self.bodies + chance.sample(self.bodies, len(self.bodies) // 3)
        chance.shuffle(stream)
        chunks = [stream[at : at + CHUNK] for at in range(0, len(stream), CHUNK)]
        self.published["events"] = len(self.bodies)
        self.published["repeats"] = len(stream) - len(self.bodies)
        poison = lasting(chance, self.plan.poison)
        started = time.monotonic()
        for number, chunk in enumerate(chunks):
            source: Source = chance.choice(SOURCES)
            self.brokers.patiently(source, chunk)
            self.published[f"by {source}"] += len(chunk)
            while len(poison) > self.plan.poison * (len(chunks) - number - 1) / len(chunks):
                self._poison(chance.choice(SOURCES), poison.pop())
            # Evenly over nine tenths of the storm, so that it always has something to hurt.
            self.over.wait(started + 0.9 * self.plan.seconds * number / len(chunks) - time.monotonic())
        self._send_conflicts(chance)

    def _poison(self, source: Source, poison: Poison) -> None:
        if source == "sqs" and not poison.is_text:
            source = "rabbitmq"
        self.brokers.patiently(source, [poison.body], poison.type)
        self.poisoned.append((source, poison))

    def _send_conflicts(self, chance: random.Random) -> None:
        """Other content for facts that are in the ledger already: only then it is sure which of the two is genuine."""
        contested = [body for body in self.bodies if any(type_ in body for type_ in CONTESTED)]
        left = chance.sample(contested, self.plan.conflicts)
        deadline = time.monotonic() + SETTLE_S
        while left:
            assert time.monotonic() < deadline, f"{len(left)} facts did not come into the ledger"
            stored = self._stored([_fact(body) for body in left])
            for body in [body for body in left if _fact(body) in stored]:
                self._poison(chance.choice(SOURCES), conflicts_with(body, chance))
                left.remove(body)
            threading.Event().wait(0.2)

    def _stored(self, facts: list[tuple[str, str]]) -> set[tuple[str, str]]:
        try:
            with psycopg.connect(self.url, autocommit=True) as owner:
                orders = [order for order, _ in facts]
                rows = owner.execute("SELECT order_id, fact FROM facts WHERE order_id = ANY(%s)", (orders,))
                return {(str(order), str(fact)) for order, fact in rows} & set(facts)
        except psycopg.OperationalError:
            return set()  # it is being hurt

    def _come_to_rest(self) -> None:
        """Every fact is in the ledger; the fleet drains on TERM; a last one finds nothing that it could not finish."""
        deadline = time.monotonic() + SETTLE_S
        wanted = len(self.bodies)
        while (stored := self._facts()) < wanted:
            assert time.monotonic() < deadline, f"{stored} of {wanted} facts {SETTLE_S:g} s after the last fault"
            self.site.fleet.running()
            threading.Event().wait(0.2)
        assert self.site.fleet.end(signal.SIGTERM) == 0
        self.site.fleet.start("--until-idle", IDLE)
        assert self.site.fleet.running().wait(SETTLE_S) == 0

    def _facts(self) -> int:
        with psycopg.connect(self.url, autocommit=True) as owner:
            row = owner.execute("SELECT count(*) FROM facts").fetchone()
        assert row is not None
        return int(row[0])


def _round(chance: random.Random) -> list[str]:
    """Every kind of fault once, shuffled, but of the slow ones one."""
    kinds = [kind for kind in KINDS if kind not in SLOW] + [chance.choice(sorted(SLOW))]
    chance.shuffle(kinds)
    return kinds


def _fact(body: bytes) -> tuple[str, str]:
    event = decode(body)
    return event.order_id, event.fact


def judge(storm: Storm, calm: dict[str, int]) -> list[str]:
    """What is not as it must be after a storm: a sentence each, none when all is well."""
    wrong: list[str] = []
    ended = balances(storm.url)
    if ended != calm:
        differing = {key for key in ended.keys() | calm.keys() if ended.get(key) != calm.get(key)}
        first = {key: (calm.get(key), ended.get(key)) for key in sorted(differing)[:5]}
        wrong.append(f"{len(differing)} balances differ from the calm run's, (calm, now) of the first: {first}")
    if unsound := faults(storm.url):
        wrong.append(f"the ledger is not sound: {unsound}")
    wrong += [f"{source} still holds {left}" for source in SOURCES if (left := storm.brokers.left(source))]
    return wrong + _letters_wrong(storm) + _log_wrong(storm.site.fleet.log)


def _letters_wrong(storm: Storm) -> list[str]:
    """Each bad message is a dead letter once, for its own reason, and no good one is, however often its consumer died."""
    found = _dead_letters(storm)
    expected = Counter(
        (storm.brokers.queue_of(source, poison.type), poison.reason, poison.body) for source, poison in storm.poisoned
    )
    good = set(storm.bodies)
    wrong = [f"a good message is a dead letter ({reason}): {body[:200]!r}" for _, reason, body in found if body in good]
    wrong += [f"missing from the dead letters: {entry}" for entry in list(expected - found)[:5]]
    wrong += [f"too many of the dead letters: {entry}" for entry in list(found - expected)[:5]]
    for source in SOURCES:
        left = storm.brokers.letters(source)
        wrong += [f"{len(left)} dead letters were left on {source}, first {left[0]}"] if left else []
    return wrong


def _dead_letters(storm: Storm) -> Counter[tuple[str, str, bytes]]:
    with psycopg.connect(storm.url, autocommit=True) as owner:
        rows = owner.execute("SELECT source_queue, reason, body, times_seen FROM dead_letters").fetchall()
    storm.published["copies of dead letters"] = sum(row[3] - 1 for row in rows)
    return Counter((str(queue), str(reason), bytes(body)) for queue, reason, body, _ in rows)


def _log_wrong(log: Path) -> list[str]:
    """No fault of the world may look like a bug to the fleet, and nobody may fail but by being killed."""
    wrong: Counter[str] = Counter()
    plain: list[str] = []
    for line in log.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            plain.append(line)
            continue
        if record["log.level"] in ("error", "critical") and record["message"] not in EXPECTED_ERRORS:
            wrong[f"{record['message']}: {str(record.get('error.stack_trace', record))[-1500:]}"] += 1
    if plain:
        wrong["\n".join(plain[-40:])] = len(plain)
    return [f"{count} times in the log: {what}" for what, count in wrong.items()]


def report(storm: Storm) -> str:
    """The table of faults by kind, and what went through."""
    rows = [f"  {count:>4}  {kind}" for kind, count in sorted(storm.faults.items())]
    poison = Counter(poison.reason for _, poison in storm.poisoned)
    sent = ", ".join(f"{count} {what}" for what, count in storm.published.items())
    bad = ", ".join(f"{count} {reason}" for reason, count in sorted(poison.items()))
    return "\n".join(
        [
            f"Seed {storm.plan.seed}: {storm.faults.total()} faults",
            *rows,
            f"Published: {sent}",
            f"Bad messages, {len(storm.poisoned)} in all: {bad}",
        ]
    )
