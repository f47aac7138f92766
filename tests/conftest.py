"""Fixtures: real servers, started when the first test asks, shared by the session; a database and a prefix per test."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from kombu import Connection

from incentive_fleet.embedded.aws import CREDENTIALS, Aws
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.ledger.session import Session
from tests.brokers_and_workers import Brokers, settings_of
from tests.parts import LocalStack, fresh_database, make_template

SAID = "said"


def pytest_configure() -> None:
    """Whatever the shell points at, no test reaches a real account, broker or database."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "INCENTIVES_"))]:
        del os.environ[name]
    os.environ.update(CREDENTIALS, AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    # Speed is never asserted: on a busy machine an example takes what it takes.
    hypothesis.settings.register_profile(
        "suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("suite")
    os.environ.pop("PYTHONUNBUFFERED", None)  # it would hide what goes wrong with output that is still buffered


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The brokers' contract first, then files of few tests: the last file of a process must not be a long one."""
    tests_in = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.parent.name != "contract", tests_in[item.path]))


@pytest.fixture(scope="session")
def parts_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="incentives-tests-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres(parts_folder: Path) -> Iterator[Postgres]:
    """The server; `.url(database)`, and for fault runs `stop`, `kill`, `start`."""
    server = Postgres(parts_folder / "postgres")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def database_template(postgres: Postgres) -> str:
    return make_template(postgres)


@pytest.fixture
def database_url(postgres: Postgres, database_template: str) -> Iterator[str]:
    """A migrated database of the test's own, as its owner."""
    with fresh_database(postgres, database_template) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres: Postgres) -> Iterator[str]:
    """A database of the test's own without any table, for the migrations themselves."""
    with fresh_database(postgres, "template1") as url:
        yield url


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    """The fleet's session on that database."""
    with closing(Session(database_url)) as session:
        yield session


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server of the module's own, to be crashed: others have sessions on the shared one."""
    server = Postgres(tmp_path_factory.mktemp("own") / "postgres")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def own_template(own_postgres: Postgres) -> str:
    return make_template(own_postgres)


@pytest.fixture(scope="session")
def rabbitmq(parts_folder: Path) -> Iterator[RabbitMQ]:
    """The node; `.url`, `.management_url`, and for fault runs `stop`, `kill`, `start`, `restart`."""
    node = RabbitMQ(parts_folder / "rabbitmq")
    try:
        node.start()
        yield node
    finally:
        node.kill()  # its folder goes away with it


@pytest.fixture
def channel(rabbitmq: RabbitMQ) -> Iterator[Any]:
    """A channel to the node, for what the product has no part in."""
    with Connection(rabbitmq.url) as connection, closing(connection.channel()) as channel:
        yield channel


@pytest.fixture(scope="session")
def localstack(parts_folder: Path) -> Iterator[LocalStack]:
    """SNS, SQS and CloudWatch as the suite judges them; `.endpoint_url` and `.environment`."""
    runtime = LocalStack(parts_folder / "localstack")
    try:
        runtime.start()
        yield runtime
    finally:
        runtime.stop()


@pytest.fixture(scope="session")
def moto_server(parts_folder: Path) -> Iterator[Aws]:
    """The emulator that the demo embeds; `.endpoint_url` and `.environment`."""
    emulator = Aws(parts_folder / "aws")
    try:
        emulator.start()
        yield emulator
    finally:
        emulator.stop()


@pytest.fixture(scope="module")
def brokers(request: pytest.FixtureRequest, rabbitmq: RabbitMQ, localstack: LocalStack) -> Iterator[Brokers]:
    """Both brokers with a topology of the module's own, whose tests leave its queues empty or fail.

    BROKER_SETTINGS in the module, if it is there, says which settings differ.
    """
    changed: dict[str, Any] = getattr(request.module, "BROKER_SETTINGS", {})
    values = {"rabbitmq_url": rabbitmq.url, "aws_endpoint_url": localstack.endpoint_url, **changed}
    brokers = Brokers(settings_of(f"t{uuid.uuid4().hex[:8]}", **values))
    brokers.apply()
    yield brokers
    brokers.close()


@pytest.fixture(autouse=True)
def _servers_are_up(request: pytest.FixtureRequest) -> None:
    """A test that failed while it held a server down must not fail the tests after it."""
    for name in ("postgres", "rabbitmq", "localstack", "moto_server"):
        if name in request.fixturenames:
            request.getfixturevalue(name).start()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With an empty `file` in it, for commands that take one."""
    (tmp_path / "file").write_bytes(b"")
    return tmp_path


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Tell a figure that whoever runs the tests shall see, also when they pass: it stands above the summary."""

    def show(text: str) -> None:
        request.node.user_properties.append((SAID, text))

    return show


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests said. Properties travel with a test's reports, also from the processes that ran them."""
    said = [
        (report.nodeid, text)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "teardown"
        for name, text in report.user_properties
        if name == SAID
    ]
    if said:
        terminalreporter.section("figures")
    for nodeid, text in said:
        terminalreporter.write_line(f"{nodeid}\n{text}\n")
    skipped = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ()))
    if skipped:
        reasons = "; ".join(f"{count} tests: {reason.removeprefix('Skipped: ')}" for reason, count in skipped.items())
        terminalreporter.write_line(f"NOT RUN, {reasons}")


@pytest.fixture
def prefix() -> str:
    """A prefix of the test's own for topics, queues and exchanges."""
    return f"t{uuid.uuid4().hex[:12]}"
