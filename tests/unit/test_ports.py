"""Ports for servers that begin to listen only a while after they were given one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import pytest

from incentive_fleet.embedded import process

FEW = 20  # so few that two calls without claims would soon be given the same
IN_ANOTHER = """
import sys
from incentive_fleet.embedded import process
process.PORTS = range(int(sys.argv[1]), int(sys.argv[2]))
process.PORT_TRIES = len(process.PORTS)
print(process.free_port())
"""


def _of_another(ports: range) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", IN_ANOTHER, str(ports.start), str(ports.stop)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[range]:
    monkeypatch.setattr(process, "PORT_TRIES", FEW)
    monkeypatch.setattr(process, "PORTS", range(32_000, 32_000 + FEW))  # beyond what others are given
    monkeypatch.setattr(process, "_claims", claims := deque[int]())
    yield process.PORTS
    for claim in claims:
        os.close(claim)


def test_a_port_is_given_once_although_nobody_listens_there_yet(few: range) -> None:
    given: list[int] = []
    with suppress(process.PartFailed):
        while len(given) <= FEW:
            given.append(process.free_port())
    assert given
    assert len(given) == len(set(given))
    other = _of_another(few)
    assert other.returncode == 1
    assert f"None of {FEW} ports" in other.stderr


def test_only_the_latest_claims_are_kept(few: range, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CLAIMS", FEW // 2)
    given = [process.free_port() for _ in range(5 * FEW)]
    assert len(process._claims) == FEW // 2
    assert int(_of_another(few).stdout) not in given[-FEW // 2 :]
