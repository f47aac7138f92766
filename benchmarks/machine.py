"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from benchmarks.contestants import PEERS
from benchmarks.rig import SERVER, Rig


def describe(rig: Rig) -> dict[str, str]:
    """Cores, memory, versions, the server's settings that matter, and how busy the machine was at the start."""
    with psycopg.connect(rig.postgres.url("postgres")) as connection:
        names = ["fsync", "synchronous_commit", "full_page_writes", *SERVER]
        settings = {name: str(connection.execute(f"SHOW {name}").fetchone()[0]) for name in names}  # type: ignore
        version = str(connection.execute("SHOW server_version").fetchone()[0])  # type: ignore[index]
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {
        "taken at": datetime.now(UTC).isoformat(timespec="minutes"),
        "cores": str(os.cpu_count()),
        "processor": _processor(),
        "memory": f"{int(memory.split()[1]) / 2**20:.0f} GiB",
        "Python": platform.python_version(),
        "Postgres": version,
        "Postgres settings": ", ".join(f"{name} {value}" for name, value in settings.items()),
        "RabbitMQ": _rabbitmq(rig),
        "peers": _peers(),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _rabbitmq(rig: Rig) -> str:
    from urllib.parse import urlsplit

    import amqp

    parts = urlsplit(rig.rabbitmq.url)
    connection = amqp.Connection(host=f"{parts.hostname}:{parts.port}")
    connection.connect()
    try:
        return str(connection.server_properties["version"])
    finally:
        connection.close()


def _peers() -> str:
    python = PEERS / "python"
    if not python.exists():
        return "not installed"
    code = (
        "from importlib.metadata import version\n"
        "print(', '.join(f'{name} {version(name)}' for name in ('dramatiq', 'celery', 'faststream')))"
    )
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
