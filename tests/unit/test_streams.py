"""Standard streams that are closed, full or read by nobody: the work goes on to its end, and the exit code is true."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = f"{sys.executable} -m incentive_fleet.cli.main"
FULL = "Error: standard output cannot be written: No space left on device. What was printed is not complete.\n"
# Opens what a database or a broker would, and says its number; then whether a program that it starts has all three.
SOCKET = f"""{sys.executable} -c '
import socket, subprocess, sys
from incentive_fleet.cli import streams
streams.prepare()
inherited = subprocess.run(["sh", "-c", "true <&0 >&1 2>&2"]).returncode
open(sys.argv[1], "w").write(f"{{socket.socket().fileno() > 2}} {{inherited}}")' """


# Beside a bar on a terminal: what is printed while the work goes on, as `ledger export` does.
PRINTING = """
from incentive_fleet.cli import printing
from incentive_fleet.cli.work import working
with working("Exporting") as tell:
    printing.say_raw("; a journal\\n")
    tell(1, "1 line")
    printing.tell("a note")
"""


def run(folder: Path, command: str) -> tuple[int, str]:
    """The exit code of a line of the shell, and what it wrote to standard error."""
    line = ["bash", "-c", f"set -o pipefail; {command}"]
    done = subprocess.run(line, cwd=folder, capture_output=True, timeout=60, check=False)
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("words", ["--help", "--version", "schemas graphql", "ledger verify --help"])
def test_a_full_disk_under_the_output_is_one_sentence(tmp_path: Path, words: str) -> None:
    assert run(tmp_path, f"{MAIN} {words} > /dev/full") == (1, FULL)


def test_a_command_that_writes_files_ends_its_work_without_an_output(tmp_path: Path) -> None:
    assert run(tmp_path, f"{MAIN} schemas write --out one > /dev/full") == (1, FULL)
    assert run(tmp_path, f"{MAIN} schemas write --out two | true")[0] == 0
    assert run(tmp_path, f"{MAIN} schemas write --out three >&- 2>&- <&-") == (0, "")
    one, two, three = ({path.name for path in (tmp_path / name).rglob("*")} for name in ("one", "two", "three"))
    assert one
    assert one == two == three


def test_a_reader_that_has_had_enough_is_no_fault_and_hides_none(tmp_path: Path) -> None:
    assert run(tmp_path, f"{MAIN} schemas graphql | true") == (0, "")
    assert run(tmp_path, f"{MAIN} nonsense 2>&1 | true")[0] == 2
    code, told = run(tmp_path, f"{MAIN} schemas check --out {tmp_path} | true")
    assert code == 1, told


def test_what_is_told_meanwhile_may_be_lost(tmp_path: Path) -> None:
    assert run(tmp_path, f"{MAIN} nonsense 2> /dev/full")[0] == 2
    assert run(tmp_path, f"{MAIN} schemas graphql 2> /dev/full > graphql") == (0, "")
    assert (tmp_path / "graphql").stat().st_size


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_nothing_gets_the_number_of_a_stream_that_was_closed(tmp_path: Path, closed: str) -> None:
    assert run(tmp_path, f"{SOCKET} seen {closed}")[0] == 0
    assert (tmp_path / "seen").read_text() == "True 0"


def test_what_is_printed_beside_a_bar_reaches_the_file_that_it_was_sent_to() -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", PRINTING], stdout=subprocess.PIPE, stderr=theirs, timeout=60, check=True
    )
    os.close(theirs)
    with os.fdopen(ours, "rb") as terminal:
        shown = terminal.read1()
    assert done.stdout == b"; a journal\n"
    assert b"Exporting" in shown
    assert b"a note" in shown
    assert b"journal" not in shown


def test_an_interruption_ends_the_process_where_it_cannot_be_told(tmp_path: Path) -> None:
    program = "from incentive_fleet.cli import interrupts; interrupts.leave(interrupts.interrupted(15))"
    assert run(tmp_path, f"{sys.executable} -c '{program}' 2> /dev/full")[0] == 143
