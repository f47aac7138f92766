"""The stop, what waits for it, and what long work says of itself meanwhile."""

from __future__ import annotations

import io
import sys
import threading
import time

import pytest

from incentive_fleet.cli import work
from incentive_fleet.cli.interrupted import SENTENCES
from incentive_fleet.cli.work import showing, working
from incentive_fleet.stopping import Stop, join

LONG_S = 60.0  # no test waits for so long


def later(act: object) -> threading.Timer:
    timer = threading.Timer(0.05, act)  # type: ignore[arg-type]
    timer.start()
    return timer


def test_a_wait_ends_with_the_stop_and_a_stop_reaches_its_children() -> None:
    stop = Stop(drain_s=10)
    child = stop.child()
    assert not child.wait(0.01)
    assert child.left_s() == float("inf")
    later(stop.set)
    assert child.wait(LONG_S)
    assert 9 < child.left_s() <= 10
    assert child.left_to_finish_s() < child.left_s() - 1
    assert stop.child().is_set(), "also one that is made afterwards"


def test_a_child_may_end_without_its_parent() -> None:
    stop = Stop()
    child = stop.child()
    child.set()
    assert child.is_set()
    assert not stop.is_set()


def test_waiting_for_a_condition_ends_with_what_it_waits_for_the_stop_or_the_time() -> None:
    stop, changed, arrived = Stop(), threading.Condition(), threading.Event()
    with changed:
        assert not stop.wait_for(changed, arrived.is_set, 0.01)
        later(arrived.set)
        assert stop.wait_for(changed, arrived.is_set, LONG_S)
        later(stop.set)
        assert not stop.wait_for(changed, lambda: False, LONG_S)
        assert not stop.wait_for(changed, lambda: False, LONG_S, patience_s=0.1)


def test_threads_are_waited_for_no_longer_than_the_drain() -> None:
    release = threading.Event()
    hung = threading.Thread(target=release.wait, daemon=True)
    hung.start()
    stop = Stop(drain_s=0.3)
    later(stop.set)
    started = time.monotonic()
    assert not join([hung], stop)
    assert time.monotonic() - started < LONG_S
    release.set()
    assert join([hung], Stop())


def test_work_tells_a_line_every_so_often_off_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    with working("Publishing", every_s=0.02) as tell:
        tell(5, "5 of 9 events are confirmed")
        deadline = time.monotonic() + LONG_S
        while said.getvalue().count("\n") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    lines = said.getvalue().splitlines()
    assert lines[0] == "Publishing, 0 s: 5 of 9 events are confirmed"
    assert len(lines) >= 2


def test_what_serves_shows_its_progress_on_a_terminal_alone(caplog: pytest.LogCaptureFixture) -> None:
    read: list[str] = []

    def count() -> str:
        read.append("read")
        return "7"

    with showing("consuming", count, every_s=0.01):
        time.sleep(0.05)  # what must not be read cannot be waited for
    assert (read, caplog.records) == ([], [])


def test_an_interruption_says_how_far_it_got_and_whether_to_run_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["incentives", "publish", "file.jsonl", "--to", "rabbitmq"])
    with working("Publishing") as tell:
        tell(5, "5 of 9 events are confirmed")
        assert work.said() == f"Publishing: 5 of 9 events are confirmed. {SENTENCES['publish']}"


def test_every_sentence_is_one() -> None:
    for command, sentence in SENTENCES.items():
        assert sentence.endswith("."), command
        assert sentence[0].isupper(), command
