"""SNS and SQS by moto's server on the loopback: for the demo, `incentives up` and tests. It keeps everything in memory.

Queues, topics and messages are lost when it stops; it is an emulator and never a judge of durability.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

from incentive_fleet.embedded.process import Record, Save, alive, end, keep_port, listening, nothing, spawn, wait_ready
from incentive_fleet.errors import SettingsError

READY_S = 60
REGION = "eu-central-1"
CREDENTIALS = {
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,  # the one of the two that boto3 reads by itself
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
}
# Without its line for every request: a long poll a second would fill the disk of whoever forgets to run `down`.
SERVE = "import logging; logging.getLogger('werkzeug').setLevel('ERROR'); from moto.server import main; main()"
FORGETS = "The SNS and SQS emulator keeps queues and messages in memory: they are lost when it stops."


def missing() -> str | None:
    """None when the emulator is installed, else a sentence that says what to install."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        return "The SNS and SQS emulator is not installed: pip install 'incentive-fleet[embedded]' brings it."
    return None


class Aws:
    """One emulator. Not thread-safe; a restart keeps the address and forgets everything else."""

    def __init__(
        self, folder: Path, *, leashed: bool = True, record: Record | None = None, save: Save = nothing
    ) -> None:
        self.folder = folder.resolve()
        self.record = record or Record()
        self._save = save
        self._leash = signal.SIGKILL if leashed else None  # it holds nothing that could be saved
        self._log = self.folder / "log"

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.record.ports['http']}"

    @property
    def environment(self) -> dict[str, str]:
        """What boto3 reads; the credentials are made up and only have to be there."""
        return {"AWS_ENDPOINT_URL": self.endpoint_url, **CREDENTIALS}

    def start(self) -> None:
        """Start the emulator; nothing if it runs already.

        Raises SettingsError when moto is missing, PartFailed with the log's end when it does not come up.
        """
        if (sentence := missing()) is not None:
            raise SettingsError(sentence)
        if (running := self.record.processes.get("server")) and alive(running):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        port = keep_port(self.record, "http")
        process = spawn(
            [sys.executable, "-c", SERVE, "-H", "127.0.0.1", "-p", str(port)],
            log=self._log,
            environment={"PATH": os.environ.get("PATH", ""), "PYTHONWARNINGS": "ignore", **CREDENTIALS},
            leash=self._leash,
            remember=self.record.remember("server", self._save),
        )
        wait_ready("The SNS and SQS emulator", lambda: listening(port), process, self._log, READY_S)

    def stop(self) -> None:
        """Stop; everything in it is lost. Nothing when it is stopped."""
        if process := self.record.processes.pop("server", None):
            end(process, [(signal.SIGTERM, 2), (signal.SIGKILL, 5)])
