"""A signal that comes while the interpreter runs code out of which no exception leads."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

# The callback takes most of the time of a loop that would go on for longer than the test waits.
PROGRAM = """
import sys, time, weakref
from incentive_fleet.cli import interrupts

class Of:
    pass

def busy(*_):
    print("busy", flush=True)
    until = time.monotonic() + 0.1
    while time.monotonic() < until:
        pass

class Destroyed:
    __del__ = busy

def by_weak_reference():
    one = Of()
    kept = weakref.ref(one, busy)
    del one

def by_destructor():
    Destroyed()

interrupts.listen(["doctor"])
interrupts.tell_by(lambda: "It was told.")
until = time.monotonic() + 20
code = 0
try:
    while time.monotonic() < until:
        {"weak reference": by_weak_reference, "destructor": by_destructor}[sys.argv[1]]()
        time.sleep(0.01)
except interrupts.Interrupted as interrupted:
    code = interrupts.interrupted(interrupted.number)
interrupts.leave(code)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("callback", ["weak reference", "destructor"])
def test_a_signal_in_a_callback_interrupts_the_command_all_the_same(callback: str, number: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, callback]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "busy\n"
        time.sleep(0.03)
        running.send_signal(number)
        _, told = running.communicate(timeout=15)
    assert running.returncode == 128 + number
    assert told == f"Stopped by {number.name}. It was told.\n"
