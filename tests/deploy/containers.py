"""Containers without an engine: an image's tree, run as an orchestrator would run it, in namespaces of its own.

The root file system is read-only, the program is process 1 and has the image's user, no capability and nothing of our
environment. It shares the network, so that it reaches servers on the loopback.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.judges import BUILT, ROOT, run

# Sockets of servers that listen on no port appear at the same path inside; it must lie below /tmp there and here.
ENTER = """
tree=$1 sockets=$2; shift 2
mount --make-rprivate /
mount --bind "$tree" "$tree"
mount --bind /dev "$tree/dev"
if [ "$sockets" != - ]; then mkdir -p "$tree/sockets"; mount --bind "$sockets" "$tree/sockets"; fi
mount -o remount,ro,bind "$tree"
mount -t proc proc "$tree/proc"
exec env -i -- "$@"
"""


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: its tree on this machine, and its configuration as Docker would read it."""

    tree: Path
    config: Mapping[str, Any]

    def command(self, words: Sequence[str], settings: Mapping[str, str], sockets: Path | None = None) -> list[str]:
        """What starts a container of this image with these words for its command."""
        user = self.config["User"]
        chroot = ["/usr/sbin/chroot", f"--userspec={user}", str(self.tree)]
        environment = [*self.config["Env"], *(f"{name}={value}" for name, value in settings.items())]
        inside = [*environment, *chroot, *self.config["Entrypoint"], *words]
        # When unshare is killed, what it started is as well.
        unshare = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child"]
        return [*unshare, "sh", "-ceu", ENTER, "sh", str(self.tree), str(sockets or "-"), *inside]


@contextmanager
def built() -> Iterator[Image]:
    """The image of deploy/docker, built by buildah on the debootstrapped base; gone afterwards."""
    storage = Path(tempfile.mkdtemp(prefix="storage-", dir=BUILT / "deploy"))
    buildah = ["buildah", "--root", str(storage / "root"), "--runroot", str(storage / "run"), "--storage-driver"]
    # Layers over each other where the kernel allows it, which takes a third of the time of copying them.
    overlay = subprocess.run([*buildah, "overlay", "info"], capture_output=True, check=False).returncode == 0
    if not overlay:
        run(["rm", "-rf", str(storage / "root"), str(storage / "run")])
    buildah.append("overlay" if overlay else "vfs")
    try:
        yield _build(buildah, storage)
    finally:
        run([*buildah, "rm", "--all"])
        run([*buildah, "rmi", "--all", "--force"])
        subprocess.run(["umount", str(storage / "root" / "overlay")], capture_output=True, check=False)
        run(["rm", "-rf", str(storage)])


def _build(buildah: list[str], storage: Path) -> Image:
    base = storage / "base"
    base.write_text("FROM scratch\nADD base.tar /\n")
    chroot = ["--isolation", "chroot", "--quiet"]
    run([*buildah, "bud", *chroot, "--tag", "localhost/base", "--file", str(base), str(BUILT / "deploy")])
    authorities = os.environ.get("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt")
    options = [*chroot, "--network", "host", "--format", "docker", "--build-arg", "BASE=localhost/base"]
    options += ["--volume", f"{authorities}:/etc/ssl/certs/ca-certificates.crt:ro", *_pip_configuration(storage)]
    options += ["--tag", "localhost/incentive-fleet", "--file", str(ROOT / "deploy/docker/Dockerfile")]
    run([*buildah, "bud", *options, str(ROOT)])
    inspected = run([*buildah, "inspect", "--type", "image", "localhost/incentive-fleet"])
    container = run([*buildah, "from", "localhost/incentive-fleet"]).strip()
    tree = run([*buildah, "mount", container]).strip()
    return Image(Path(tree), json.loads(inspected)["Docker"]["config"])


def _pip_configuration(storage: Path) -> list[str]:
    """The index that pip uses on this machine, where it is not the public one, as the Dockerfile takes it: as a secret."""
    settings = dict(
        line.split("=", 1) for line in run([str(ROOT / ".venv/bin/pip"), "config", "list"]).splitlines() if "=" in line
    )
    index = next((value.strip("'") for name, value in settings.items() if name.endswith(".index-url")), None)
    if index is None:
        return []
    file = storage / "pip.conf"
    file.write_text(f"[global]\nindex-url = {index}\n")
    return ["--secret", f"id=pip,src={file}"]


class Container:
    """One that serves until it is told to stop; what it printed is in `log`."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)

    def stop(self, seconds: float) -> int:
        """SIGTERM to its process 1, as an orchestrator sends it; the exit code. Raises TimeoutExpired."""
        (first,) = self._children()
        os.kill(first, signal.SIGTERM)
        return self._process.wait(seconds)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def program(self) -> str:
        """The command line of process 1; empty until there is one."""
        children = self._children()
        return Path(f"/proc/{children[0]}/cmdline").read_bytes().replace(b"\0", b" ").decode() if children else ""

    def status(self) -> dict[str, str]:
        """What the kernel says of process 1."""
        (first,) = self._children()
        lines = Path(f"/proc/{first}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def _children(self) -> list[int]:
        found = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [int(number) for number in found.split()]
