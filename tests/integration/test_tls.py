"""Certificates of Postgres, RabbitMQ and AWS are verified: each that is not right is one sentence, and nothing is sent past it.

A TLS server with certificates of the test's own stands before each real part.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
import pytest

from incentive_fleet.brokers import declare, registry
from incentive_fleet.brokers.messages import message_of
from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.doctor.examination import examine
from incentive_fleet.embedded.aws import Aws
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.errors import BrokerUnavailable, SettingsError
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from tests.brokers_and_workers import said, start
from tests.certificates import Authority, Front, Pair, tls_before
from tests.command import Ran, incentives
from tests.dead_letter_world import order
from tests.doctors import NO_AWS, examined, worst

HOST: Final = "127.0.0.1"
NOBODYS: Final = "shop.invalid"
# The certificate that a server shows, and why it is not accepted.
WRONG: Final = {
    "of another authority": "unable to get local issuer certificate",
    "of another host": "IP address mismatch, certificate is not valid for '127.0.0.1'",
    "expired": "certificate has expired",
}


class Certificates:
    """One authority that is believed, one that is not, and what they signed."""

    def __init__(self, folder: Path) -> None:
        self.ours, self.others = Authority(folder, "ours"), Authority(folder, "others")
        self.right = self.ours.sign("right", [HOST])
        self.wrong: dict[str, Pair] = {
            "of another authority": self.others.sign("right", [HOST]),
            "of another host": self.ours.sign("host", [NOBODYS]),
            "expired": self.ours.sign("expired", [HOST], timedelta(hours=-1)),
        }
        self.client = self.ours.sign("client", ["fleet"])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


Secured = Callable[[Pair], AbstractContextManager[Front]]


def refused(ran: Ran, part: str, why: str) -> None:
    """One sentence that names part and problem, lines with the settings, and no more."""
    assert (ran.code, ran.out) == (1, "")
    sentence, *rest = ran.err.splitlines()
    assert sentence.startswith("Error: ")
    assert part in sentence
    assert why in sentence
    assert all(" leads to " in line or " is eu-central-1" in line for line in rest), rest


def nothing_passed(front: Front) -> None:
    """Not a byte in the clear, and none past the handshake to a server whose certificate was not accepted."""
    assert (front.clear, front.through) == ([], 0)


@pytest.fixture
def before_postgres(database_url: str) -> Secured:
    sockets = str(psycopg.conninfo.conninfo_to_dict(database_url)["host"])
    return lambda pair: tls_before(f"{sockets}/.s.PGSQL.5432", pair, postgres=True)


def postgres_at(front: Front, database_url: str, authority: Authority) -> str:
    database = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    return f"postgresql://postgres@{HOST}:{front.port}/{database}?sslmode=verify-full&sslrootcert={authority.file}"


def test_postgres_with_the_right_certificate(
    certificates: Certificates, database_url: str, before_postgres: Secured
) -> None:
    with before_postgres(certificates.right) as front:
        url = postgres_at(front, database_url, certificates.ours)
        assert incentives("ledger", "verify", env={"INCENTIVES_DATABASE_URL": url}).code == 0
        assert worst(examined(database_url=url), "postgres-reached", "postgres-tls") == {
            "postgres-reached": "ok",
            "postgres-tls": "ok",
        }
    assert front.clear == []


@pytest.mark.parametrize("case", WRONG)
def test_postgres_with_a_wrong_one(
    case: str, certificates: Certificates, database_url: str, before_postgres: Secured
) -> None:
    with before_postgres(certificates.wrong[case]) as front:
        url = postgres_at(front, database_url, certificates.ours)
        refused(incentives("ledger", "balances", env={"INCENTIVES_DATABASE_URL": url}), "Postgres", WRONG[case])
    nothing_passed(front)


def test_a_file_that_is_not_there_is_a_wrong_setting(certificates: Certificates, tmp_path: Path) -> None:
    nowhere, no_certificate = tmp_path / "nowhere.pem", tmp_path / "empty.pem"
    no_certificate.write_text("nothing", encoding="utf-8")
    rabbitmq = {"INCENTIVES_RABBITMQ_URL": f"amqps://me:secret@{HOST}:1/%2F"}
    aws = {"AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL": f"https://{HOST}:1"}
    postgres = f"postgresql://{HOST}:1/shop?sslmode=verify-full&sslrootcert={nowhere}"
    pair = certificates.client
    for env, begins in (
        (
            {"INCENTIVES_DATABASE_URL": postgres},
            "INCENTIVES_DATABASE_URL cannot be read: its sslrootcert names no file",
        ),
        (
            rabbitmq | {"INCENTIVES_RABBITMQ_CA_FILE": str(nowhere)},
            f"INCENTIVES_RABBITMQ_CA_FILE is {str(nowhere)!r}: No such",
        ),
        (
            rabbitmq | {"INCENTIVES_RABBITMQ_CA_FILE": str(no_certificate)},
            f"INCENTIVES_RABBITMQ_CA_FILE is {str(no_certificate)!r}: ",
        ),
        (
            rabbitmq | {"INCENTIVES_RABBITMQ_CERTIFICATE_FILE": str(pair.certificate)},
            f"INCENTIVES_RABBITMQ_CERTIFICATE_FILE is {str(pair.certificate)!r}: ",
        ),
        (
            rabbitmq | {"INCENTIVES_RABBITMQ_KEY_FILE": str(pair.key)},
            "INCENTIVES_RABBITMQ_KEY_FILE is set without INCENTIVES_RABBITMQ_CERTIFICATE_FILE.",
        ),
        (
            {"INCENTIVES_RABBITMQ_URL": f"amqp://{HOST}:1", "INCENTIVES_RABBITMQ_CA_FILE": str(certificates.ours.file)},
            "INCENTIVES_RABBITMQ_CA_FILE is set, but INCENTIVES_RABBITMQ_URL begins with amqp://",
        ),
        (aws | {"AWS_CA_BUNDLE": str(nowhere)}, f"AWS_CA_BUNDLE is {str(nowhere)!r}: No such"),
        (aws | {"AWS_CA_BUNDLE": str(no_certificate)}, f"AWS_CA_BUNDLE is {str(no_certificate)!r}: "),
    ):
        with pytest.raises(SettingsError) as caught:
            examine(Settings.from_environment(env), 1)
        assert str(caught.value).startswith(begins)
        assert "secret" not in str(caught.value)


def before_rabbitmq(rabbitmq: RabbitMQ, pair: Pair, clients: Path | None = None) -> AbstractContextManager[Front]:
    url = urlsplit(rabbitmq.url)
    return tls_before((str(url.hostname), int(url.port or 0)), pair, clients=clients)


def before_management(rabbitmq: RabbitMQ, pair: Pair) -> AbstractContextManager[Front]:
    url = urlsplit(rabbitmq.management_url)
    return tls_before((str(url.hostname), int(url.port or 0)), pair)


def rabbitmq_at(front: Front, prefix: str, ca: Path, api: Front | None = None, client: Pair | None = None) -> Settings:
    return Settings(
        prefix=prefix,
        rabbitmq_url=f"amqps://guest:guest@{HOST}:{front.port}/%2F",
        rabbitmq_management_url=f"https://guest:guest@{HOST}:{api.port}" if api else None,
        rabbitmq_ca_file=str(ca),
        rabbitmq_certificate_file=str(client.certificate) if client else None,
        rabbitmq_key_file=str(client.key) if client else None,
        wait_s=0.2,
    )


def environment(settings: Settings) -> dict[str, str]:
    given = settings.model_dump(exclude_defaults=True)
    return {**NO_AWS, **{f"INCENTIVES_{name.upper()}": str(value) for name, value in given.items()}}


def test_rabbitmq_with_the_right_certificates_and_ours(
    certificates: Certificates, rabbitmq: RabbitMQ, prefix: str
) -> None:
    """By both drivers and the API: declared, published, received, examined."""
    ca = certificates.ours.file
    with (
        before_rabbitmq(rabbitmq, certificates.right, clients=ca) as front,
        before_management(rabbitmq, certificates.right) as api,
    ):
        settings = rabbitmq_at(front, prefix, ca, api, certificates.client)
        declare.apply(settings)
        assert declare.check(settings).drift == ()
        with closing(registry.open_events(settings, RABBITMQ)) as publisher:
            assert publisher.publish([message_of(order(1))]) == []
        with closing(registry.parts_of(RABBITMQ).open_transport(settings, Stop())) as transport:
            [delivery] = transport.receive(1, 10)
        assert delivery.body == order(1)
        found = examined(**settings.model_dump(exclude_defaults=True))
        assert [one.severity.value for one in found["rabbitmq-tls"]] == ["ok", "ok"]
        stranger = rabbitmq_at(front, prefix, ca, api)
        with pytest.raises(BrokerUnavailable), closing(registry.open_events(stranger, RABBITMQ)) as publisher:
            publisher.check()
    assert (front.clear, api.clear) == ([], [])


@pytest.mark.parametrize("case", WRONG)
def test_rabbitmq_with_a_wrong_one(
    case: str, certificates: Certificates, rabbitmq: RabbitMQ, prefix: str, tmp_path: Path
) -> None:
    why, ca = f"its certificate is not accepted: {WRONG[case]}", certificates.ours.file
    with before_rabbitmq(rabbitmq, certificates.wrong[case]) as front:
        settings = rabbitmq_at(front, prefix, ca)
        refused(incentives("topology", "check", env=environment(settings)), "RabbitMQ", WRONG[case])
        with (
            pytest.raises(BrokerUnavailable, match=why),
            closing(registry.open_events(settings, RABBITMQ)) as publisher,
        ):
            publisher.check()
        assert why in examined(**settings.model_dump(exclude_defaults=True))["rabbitmq-reached"][0].value
    nothing_passed(front)
    with (
        before_rabbitmq(rabbitmq, certificates.right) as front,
        before_management(rabbitmq, certificates.wrong[case]) as api,
    ):
        settings = rabbitmq_at(front, prefix, ca, api)
        refused(incentives("topology", "check", env=environment(settings)), "RabbitMQ management API", WRONG[case])
    nothing_passed(api)


def test_what_the_system_believes_is_no_way_past_it(
    certificates: Certificates, rabbitmq: RabbitMQ, prefix: str
) -> None:
    """Without a file of ours; and with options of the URL that would verify nothing, had pika its way."""
    with before_rabbitmq(rabbitmq, certificates.right) as front:
        settings = rabbitmq_at(front, prefix, certificates.ours.file).model_copy(update={"rabbitmq_ca_file": None})
        refused(incentives("topology", "check", env=environment(settings)), "RabbitMQ", WRONG["of another authority"])
        trusting = f"{settings.rabbitmq_url}?ssl_options=%7B'protocol':2,'ca_certs':'{certificates.ours.file}'%7D"
        ran = incentives("topology", "check", env=environment(settings) | {"INCENTIVES_RABBITMQ_URL": trusting})
        assert (ran.code, ran.err.split(" beyond ")[0]) == (2, "Error: INCENTIVES_RABBITMQ_URL has ssl_options")
    nothing_passed(front)


def test_a_consumer_says_it_in_one_line_of_its_log(
    certificates: Certificates, rabbitmq: RabbitMQ, database_url: str, prefix: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with before_rabbitmq(rabbitmq, certificates.wrong["expired"]) as front:
        settings = rabbitmq_at(front, prefix, certificates.ours.file).model_copy(update={"database_url": database_url})
        words = ["-m", "incentive_fleet.cli.main", "consume", "--from", "rabbitmq", "--no-collect"]
        process = start([sys.executable, *words], settings, log)
        try:
            deadline = time.monotonic() + 60
            while not (lines := said(log, "consuming paused")):
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.05)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    assert [line["error"] for line in lines] == ["RabbitMQ: its certificate is not accepted: certificate has expired"]
    assert "Traceback" not in log.read_text(encoding="utf-8")
    nothing_passed(front)


def before_aws(aws: Aws, pair: Pair) -> AbstractContextManager[Front]:
    url = urlsplit(aws.endpoint_url)
    return tls_before((str(url.hostname), int(url.port or 0)), pair)


def aws_at(front: Front, prefix: str, ca: Path) -> dict[str, str]:
    return {
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": f"https://{HOST}:{front.port}",
        "AWS_CA_BUNDLE": str(ca),
        "INCENTIVES_PREFIX": prefix,
    }


def test_aws_with_the_right_certificate(certificates: Certificates, moto_server: Aws, prefix: str) -> None:
    with before_aws(moto_server, certificates.right) as front:
        env = aws_at(front, prefix, certificates.ours.file)
        assert incentives("topology", "apply", env=env).code == 0
        ran = incentives("doctor", "--format", "json", env=env)
        told = {one["code"]: one["severity"] for one in ran.document["findings"]}
        assert (told["aws-reached"], told["aws-tls"]) == ("ok", "ok")
        settings = Settings.from_environment(env)
        with closing(registry.open_events(settings, registry.by_source("sqs"))) as publisher:
            assert publisher.publish([message_of(order(1))]) == []
        with closing(registry.parts_of(registry.by_source("sqs")).open_transport(settings, Stop())) as transport:
            [delivery] = transport.receive(1, 10)
        assert delivery.body == order(1)
    assert front.clear == []


@pytest.mark.parametrize("case", WRONG)
def test_aws_with_a_wrong_one(case: str, certificates: Certificates, moto_server: Aws, prefix: str) -> None:
    with before_aws(moto_server, certificates.wrong[case]) as front:
        env = aws_at(front, prefix, certificates.ours.file)
        # The library of AWS compares the names itself, and says so in its own words.
        why = "hostname '127.0.0.1' doesn't match 'shop.invalid'" if case == "of another host" else WRONG[case]
        refused(incentives("topology", "check", env=env), "SNS/SQS", why)
    nothing_passed(front)
