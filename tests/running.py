"""Commands that are told to stop: started with their parts present, away or hung, signalled, and looked at."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from incentive_fleet.embedded.aws import CREDENTIALS


class Hung:
    """A listener that takes every connection and never says a word; `wait` until somebody has connected to it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connected = threading.Event()
        self._taken: list[socket.socket] = []
        self._thread = threading.Thread(target=self._take, name="hung", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        return self._connected.wait(seconds)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for connection in self._taken:
            connection.close()

    def _take(self) -> None:
        while True:
            try:
                self._taken.append(self._listener.accept()[0])
            except OSError:  # closed
                return
            self._connected.set()


def refused_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def nowhere(port: int, folder: Path) -> dict[str, str]:
    """Settings by which every part is behind this port."""
    return {
        **CREDENTIALS,
        "INCENTIVES_DATABASE_URL": f"postgresql://nobody@127.0.0.1:{port}/nothing",
        "INCENTIVES_RABBITMQ_URL": f"amqp://guest:guest@127.0.0.1:{port}/%2F",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": "eu-central-1",
        "INCENTIVES_ACTOR": "ann",
        "INCENTIVES_SERVE_PORT": "0",
        "HOME": str(folder),
    }


@dataclass(slots=True)
class Running:
    """A command under way, its two streams in files."""

    words: tuple[str, ...]
    process: subprocess.Popen[bytes]
    out_path: Path
    err_path: Path
    watch: threading.Thread = field(init=False)
    told_at: float = 0.0
    ended_at: float = 0.0

    def __post_init__(self) -> None:
        self.watch = threading.Thread(target=self._watch, daemon=True)
        self.watch.start()

    def _watch(self) -> None:
        self.process.wait()
        self.ended_at = time.monotonic()

    @property
    def ended_after_s(self) -> float:
        """From the first signal to the end."""
        return self.ended_at - self.told_at

    @property
    def out(self) -> str:
        return self.out_path.read_text(encoding="utf-8", errors="replace")

    @property
    def err(self) -> str:
        return self.err_path.read_text(encoding="utf-8", errors="replace")

    def tell(self, number: signal.Signals) -> None:
        self.told_at = self.told_at or time.monotonic()
        self.process.send_signal(number)

    def until(self, text: str, seconds: float = 60) -> None:
        """Wait until standard error has this text."""
        deadline = time.monotonic() + seconds
        while text not in self.err:
            assert self.process.poll() is None, f"{self.words} ended: {self.err}"
            assert time.monotonic() < deadline, f"{self.words} did not say {text!r}: {self.err}"
            time.sleep(0.02)


def run(folder: Path, env: Mapping[str, str], *words: str) -> Running:
    """Start `incentives` with these words, in a folder of its own."""
    here = folder / "-".join(word.strip("-/").replace("/", "_")[:20] for word in words)[:80]
    here.mkdir(parents=True)
    out, err = here / "out", here / "err"
    with out.open("wb") as to_out, err.open("wb") as to_err:
        process = subprocess.Popen(
            [sys.executable, "-m", "incentive_fleet.cli.main", *words],
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=to_out,
            stderr=to_err,
            cwd=here,
        )
    return Running(words, process, out, err)


def await_all(all_of_them: Sequence[Running], seconds: float) -> None:
    """Wait until every one has ended; kills what is left, which then has ended late."""
    deadline = time.monotonic() + seconds
    for one in all_of_them:
        one.watch.join(max(0.0, deadline - time.monotonic()))
        if one.watch.is_alive():
            one.process.kill()
            one.watch.join()
