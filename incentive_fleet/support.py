"""Which releases of the parts this release works with, and what shows it. Data; docs/deploy/support.md is the same table.

A row that names tests is run by its make target; one without is not run by anybody here, and says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SupportedRelease:
    """One release of one part."""

    part: str
    release: str  # as much of the version as matters
    target: str = ""  # the make target that runs it; "" for none
    tests: tuple[str, ...] = ()  # files that play it
    remark: str = ""


SUITE: Final = ("tests/integration", "tests/contract")
LEDGER: Final = tuple(
    f"tests/integration/test_{name}.py"
    for name in (
        *("balances", "batch", "concurrency", "database_set_up", "plans"),
        *("schema_refuses", "statements_order", "verify", "doctor"),
    )
)
BROKER: Final = ("tests/contract", "tests/integration/test_topology.py", "tests/integration/test_publish_rabbitmq.py")
POOLER: Final = ("tests/integration/test_pooler.py",)
AVAILABLE: Final = ("tests/ha/test_high_availability.py",)
NEVER: Final = "nothing here can run it"

TABLE: Final = (
    SupportedRelease(
        "Postgres", "15", "postgres-releases", LEDGER, "as Debian 12 has it; `make ha` runs Patroni with it"
    ),
    SupportedRelease("Postgres", "16", "postgres-releases", LEDGER, "from the wheel that brings 18"),
    SupportedRelease("Postgres", "17", "postgres-releases", LEDGER, "as Debian 13 has it"),
    SupportedRelease("Postgres", "18", "test", SUITE, "what the suite and `incentives up` run"),
    SupportedRelease(
        "Aurora PostgreSQL",
        "15 to 17",
        remark=f"{NEVER}; it is Postgres to its clients, and `doctor` knows its storage",
    ),
    SupportedRelease("RDS for PostgreSQL", "15 to 18", remark=f"{NEVER}; Multi-AZ is to be looked at in its console"),
    SupportedRelease("Patroni", "3.0", "ha", AVAILABLE, "three servers, synchronous mode"),
    SupportedRelease("PgBouncer", "1.18", "foreign-parts", POOLER, "as Debian 12 has it; transaction and session mode"),
    SupportedRelease("PgBouncer", "1.24", "foreign-parts", POOLER, "as Debian 13 has it; transaction and session mode"),
    SupportedRelease("RDS Proxy", "", remark=f"{NEVER}; it is no PgBouncer: it pins a session where it sees SET"),
    SupportedRelease("RabbitMQ", "3.10", "test", SUITE, "as Debian 12 has it"),
    SupportedRelease("RabbitMQ", "3.11", remark="no Debian has it"),
    SupportedRelease("RabbitMQ", "3.12", remark="no Debian has it"),
    SupportedRelease("RabbitMQ", "3.13", remark="no Debian has it"),
    SupportedRelease("RabbitMQ", "4.0", "rabbitmq4", BROKER, "as Debian 13 has it"),
    SupportedRelease("RabbitMQ", "4.1", remark="no Debian has it"),
    SupportedRelease("RabbitMQ", "4.2", remark="no Debian has it"),
    SupportedRelease("RabbitMQ", "4.3", "rabbitmq4", BROKER, "as sid has it; it moves on"),
    SupportedRelease("SNS and SQS", "", remark="what AWS runs; nothing here has an account"),
    SupportedRelease(
        "LocalStack", "4.12", "test", SUITE, "SNS, SQS and CloudWatch; CloudFormation in `make deploy-check`"
    ),
    SupportedRelease("moto", "5", "test", SUITE, "what `incentives up` runs; it keeps messages in memory"),
    SupportedRelease("Python", "3.11", "test", SUITE, "as Debian 12 has it"),
    SupportedRelease("Python", "3.12", remark="packages are resolved for it"),
    SupportedRelease("Python", "3.13", "test", SUITE, "on Debian 13"),
    SupportedRelease("Python", "3.14", remark="packages are resolved for it"),
)


def releases(part: str) -> list[SupportedRelease]:
    """The rows of a part, oldest first."""
    return [row for row in TABLE if row.part == part]


def version_of(text: str) -> Version:
    """The numbers at the beginning of a version: (4, 0, 5) of "4.0.5+1"."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(number) for number in found[0].split(".")) if found else ()


def row_of(part: str, version: Version) -> SupportedRelease | None:
    """The row that a version belongs to; None where it is older, newer or between those that the table has."""
    return next(
        (row for row in releases(part) if version[: len(version_of(row.release))] == version_of(row.release)), None
    )


def is_older(part: str, version: Version) -> bool:
    """Whether it is older than all that the table has."""
    return version < version_of(releases(part)[0].release)
