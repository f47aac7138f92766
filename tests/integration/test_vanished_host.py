"""A database host that vanishes without a word, as one that loses its power: it is given up in the time of a failover.

Only a network that swallows packets shows it, for a proxy's kernel would answer. So a process with a loopback of its own
talks to the server through it, and takes it down.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from incentive_fleet.embedded.postgres import SOCKET_NAME
from incentive_fleet.ledger.connection import VANISHED_AFTER_S
from tests.parts import ROOT

MARGIN_S = 4.0  # the kernel looks at its timers when a probe is due, and doubles the time between two retransmissions
APART = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
INSIDE = """
import fcntl, json, socket, struct, sys, threading, time
from incentive_fleet.errors import DatabaseUnavailable
from incentive_fleet.ledger.connection import connect, mapped_errors
from tests.chaos.faulty_proxy import FaultyProxy

SIOCSIFFLAGS, UP = 0x8914, 1

def loopback(flags):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))

loopback(UP)
wire = FaultyProxy(sys.argv[1])
url = f"postgresql://postgres@127.0.0.1:{wire.port}/{sys.argv[2]}"
down, took = threading.Event(), {}

def waits(connection):
    connection.execute("SELECT pg_sleep(120)")

def sends(connection):
    down.wait()
    connection.execute("SELECT 1")

def measured(act, connection):
    try:
        with mapped_errors():
            act(connection)
    except DatabaseUnavailable:
        took[act.__name__] = time.monotonic() - since

threads = [threading.Thread(target=measured, args=(act, connect(url)), daemon=True) for act in (waits, sends)]
for thread in threads:
    thread.start()
time.sleep(0.5)  # the long statement is under way
loopback(0)
since = time.monotonic()
down.set()
for thread in threads:
    thread.join(60)
print(json.dumps(took))
"""


def test_a_host_that_vanishes_is_given_up_in_the_time_of_a_failover(
    database_url: str, say: Callable[[str], None]
) -> None:
    if subprocess.run([*APART, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives a process no network of its own (unshare --net)")
    parts = urlsplit(database_url)
    sockets = parse_qs(parts.query)["host"][0] + SOCKET_NAME
    done = subprocess.run(
        [*APART, sys.executable, "-c", INSIDE, sockets, parts.path[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    took: dict[str, float] = json.loads(done.stdout)
    say(f"a database host that vanished was given up after {', '.join(f'{s:.1f} s ({n})' for n, s in took.items())}")
    assert took.keys() == {"waits", "sends"}
    assert all(VANISHED_AFTER_S / 2 < seconds < VANISHED_AFTER_S + MARGIN_S for seconds in took.values()), took
