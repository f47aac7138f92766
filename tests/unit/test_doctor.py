"""The table of what `incentives doctor` may find: one code one meaning, and the page says what the program says."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from incentive_fleet.brokers import registry
from incentive_fleet.brokers.rabbitmq.doctor import QUORUM, _disk, _members
from incentive_fleet.doctor import examination
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.findings import Finding, Look, Question, Severity, clock_finding, look_at, version_finding
from incentive_fleet.ledger.doctor.durability import _commit, _wanted
from incentive_fleet.settings import Settings
from tests.doctors import by_code, worst
from tests.memory_parts import MEMORY, MemoryParts

PAGE = (Path(__file__).parents[2] / "docs/doctor.md").read_text(encoding="utf-8")
CHECK = Question("part-check", "setting", "It is lost.", "Keep it.")


def test_the_page_lists_every_check_as_it_is() -> None:
    told = re.findall(r"^\| `([a-z-]+)` \| (.*) \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
    assert told == [(one.code, one.setting, one.risk, one.remedy) for one in examination.checks()]


def test_each_code_is_one_check_and_begins_with_its_part() -> None:
    checks = examination.checks()
    assert [code for code, times in Counter(one.code for one in checks).items() if times > 1] == []
    parts = {"host", "postgres", *(broker.name for broker in registry.BROKERS)}
    assert {one.code.partition("-")[0] for one in checks} == parts
    for broker, its in registry.BROKERS.items():
        assert all(one.code.startswith(f"{broker.name}-") for one in its.checks())


def test_a_look_that_fails_leaves_its_checks_unknown_and_the_others_asked() -> None:
    def fails(_: None) -> Iterator[Finding]:
        raise BrokerUnavailable("no\nanswer")
        yield

    other = Question("part-other", "setting", "It is lost.", "Keep it.")
    looks: tuple[Look[None], ...] = (
        Look((CHECK,), fails),
        Look((other,), lambda _: iter([other.found(Severity.OK, "well")])),
    )
    found = list(look_at(looks, None))
    assert [(one.code, one.severity.value, one.value) for one in found] == [
        ("part-check", "unknown", "no answer"),
        ("part-other", "ok", "well"),
    ]


def test_a_broker_of_one_folder_is_examined_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = MemoryParts()
    monkeypatch.setitem(registry.BROKERS, MEMORY, parts)
    codes = ("memory-reached", "memory-declared")
    assert {check.code for check in examination.checks()} >= set(codes)
    found = by_code(examination.examine(Settings(), 1))
    assert worst(found, *codes) == {"memory-reached": "ok", "memory-declared": "risk"}
    parts.declared = True
    assert worst(by_code(examination.examine(Settings(), 1)), *codes) == dict.fromkeys(codes, "ok")
    parts.broker.away = True
    found = by_code(examination.examine(Settings(), 1))
    assert (found["memory-reached"][0].value, "memory-declared" in found) == ("memory broker: away", False)


def test_a_part_that_breaks_or_hangs_keeps_what_it_had_said(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, never = MemoryParts(), threading.Event()
    monkeypatch.setitem(registry.BROKERS, MEMORY, parts)

    def breaks(_: Settings) -> Iterator[Finding]:
        yield CHECK.found(Severity.OK, "well")
        raise RuntimeError("of a driver")

    def hangs(_: Settings) -> Iterator[Finding]:
        yield CHECK.found(Severity.OK, "well")
        never.wait(60)

    for way, said in ((breaks, "RuntimeError: of a driver"), (hangs, "no whole answer within 0.2 s")):
        monkeypatch.setattr(parts, "examine", way)
        found = by_code(examination.examine(Settings(), 1, within_s=0.2))
        assert said in found["memory-reached"][0].value
        assert worst(found, "memory-reached", "part-check") == {"memory-reached": "risk", "part-check": "ok"}
    never.set()


@pytest.mark.parametrize(
    ("members", "online", "severity"),
    [
        (3, 3, "ok"),
        (5, 4, "note"),
        (3, 2, "note"),
        (3, 1, "risk"),
        (4, 2, "risk"),
        (2, 2, "risk"),
        (1, 1, "risk"),
        (0, 0, "risk"),
    ],
)
def test_the_members_of_a_queue(members: int, online: int, severity: str) -> None:
    found = _members("queue", members, online)
    assert (found.code, found.severity.value) == (QUORUM.code, severity)


@pytest.mark.parametrize(
    ("free", "limit", "severity"),
    [
        (100 << 30, 2 << 30, "ok"),
        (100 << 30, 50 << 20, "note"),
        (90 << 20, 50 << 20, "risk"),
        ("disabled", 1, "unknown"),
    ],
)
def test_the_disk_of_a_node(free: object, limit: object, severity: str) -> None:
    assert _disk("node", free, limit).severity.value == severity


@pytest.mark.parametrize(
    ("value", "has_names", "severity"),
    [
        ("on", True, "ok"),
        ("on", False, "ok"),
        ("remote_apply", True, "ok"),
        ("off", True, "risk"),
        ("off", False, "risk"),
        ("local", True, "risk"),
        ("local", False, "ok"),
        ("remote_write", True, "note"),
    ],
)
def test_what_a_commit_waits_for(value: str, has_names: bool, severity: str) -> None:
    assert _commit(value, has_names).severity.value == severity


@pytest.mark.parametrize(
    ("names", "wanted"),
    [("*", 1), ("a, b", 1), ("FIRST 2 (a, b)", 2), ("any 2 (*)", 2), ("3 (a, b, c)", 3), ('"2" , b', 1)],
)
def test_how_many_standbys_must_answer(names: str, wanted: int) -> None:
    assert _wanted(names) == wanted


@pytest.mark.parametrize(
    ("ahead_s", "uncertain_s", "severity"),
    [(0.2, 0.1, "ok"), (-1.4, 0.5, "ok"), (1.6, 0.5, "note"), (-30, 1, "note"), (90, 1, "risk"), (-61.5, 0.5, "risk")],
)
def test_a_clock_that_is_off(ahead_s: float, uncertain_s: float, severity: str) -> None:
    assert clock_finding(CHECK, ahead_s, uncertain_s).severity.value == severity


@pytest.mark.parametrize(
    ("part", "version", "severity"),
    [
        ("Postgres", "18.4", "ok"),
        ("Postgres", "18.4 (Debian 18.4-1)", "ok"),
        ("Postgres", "14.11", "risk"),
        ("Postgres", "19beta1", "note"),
        ("Postgres", "", "note"),
        ("RabbitMQ", "3.8.9", "risk"),
        ("RabbitMQ", "3.10.8", "ok"),
        ("RabbitMQ", "3.13.7", "note"),
        ("RabbitMQ", "5.0.0", "note"),
        ("Python", "3.11.7", "ok"),
        ("Python", "3.1.2", "risk"),
    ],
)
def test_versions_are_held_against_the_table_of_support(part: str, version: str, severity: str) -> None:
    assert version_finding(CHECK, part, version).severity.value == severity
