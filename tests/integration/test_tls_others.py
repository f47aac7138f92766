"""Whom the console's logins, telemetry and Sentry are sent to is verified as well: the authorities are those that docs/tls.md says.

A TLS server with certificates of the test's own stands before each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx2
import pytest
from opentelemetry.sdk.metrics.export import MetricsData

from incentive_fleet import sentry
from incentive_fleet.settings import Settings
from incentive_fleet.telemetry.pushing import open_exporter
from tests.certificates import Front, Pair, tls_before
from tests.console_world import client_of
from tests.integration.test_tls import HOST, WRONG, Certificates, certificates
from tests.oidc import console_behind, issuing
from tests.otlp import collector
from tests.running import refused_port
from tests.sentry_ingest import ingest

__all__ = ["certificates"]  # the fixture

BY_THE_PROCESS: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "OTEL_EXPORTER_OTLP_CERTIFICATE")


@pytest.fixture(autouse=True)
def _nobody_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BY_THE_PROCESS:
        monkeypatch.delenv(name, raising=False)


def before(url: str, pair: Pair) -> AbstractContextManager[Front]:
    return tls_before((HOST, urlsplit(url).port or 0), pair)


# Each sends something to a server with that certificate: what of it arrived, and what came to the front.


def login(pair: Pair, database_url: str) -> tuple[bool, Front]:
    port = refused_port()
    with issuing() as issuer, before(issuer.url, pair) as front:
        issuer.url = f"https://{HOST}:{front.port}"
        settings = console_behind(issuer, database_url, f"http://{HOST}:{port}")
        with client_of(settings, port) as client:
            answer = client.get("/login")
        assert answer.status_code in {httpx2.codes.FOUND, httpx2.codes.SERVICE_UNAVAILABLE}
        return answer.headers.get("Location", "").startswith(f"{issuer.url}/authorize"), front


def metrics(pair: Pair, database_url: str) -> tuple[bool, Front]:
    with collector() as otlp, before(otlp.url, pair) as front:
        exporter = open_exporter(Settings(otlp_endpoint=f"https://{HOST}:{front.port}"))
        exporter.export(MetricsData([]))
        exporter.shutdown()
        return front.through > 0, front


def unexpected_error(pair: Pair, database_url: str) -> tuple[bool, Front]:
    with ingest() as place, before(place.dsn, pair) as front:
        dsn = f"https://publickey@{HOST}:{front.port}/42"
        with sentry.reporting(Settings(sentry_dsn=dsn)):
            logging.getLogger("incentive_fleet.tests").error("unexpected error", exc_info=ValueError("of a test"))
        return place.events != [], front


@dataclass(frozen=True)
class Way:
    send: Callable[[Pair, str], tuple[bool, Front]]
    authorities: str  # the variable that names them


WAYS: Final = {
    "a login's issuer": Way(login, "SSL_CERT_FILE"),
    "metrics": Way(metrics, "REQUESTS_CA_BUNDLE"),
    "metrics, by OpenTelemetry's own": Way(metrics, "OTEL_EXPORTER_OTLP_CERTIFICATE"),
    "Sentry": Way(unexpected_error, "SSL_CERT_FILE"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_right_certificate(
    way: str, certificates: Certificates, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WAYS[way].authorities, str(certificates.ours.file))
    arrived, front = WAYS[way].send(certificates.right, database_url)
    assert (arrived, front.clear) == (True, [])


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("way", ["a login's issuer", "metrics", "Sentry"])
def test_a_wrong_one(
    way: str,
    case: str,
    certificates: Certificates,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setenv(WAYS[way].authorities, str(certificates.ours.file))
    arrived, front = WAYS[way].send(certificates.wrong[case], database_url)
    assert (arrived, front.clear, front.through) == (False, [], 0)
    told = [record for record in caplog.records if record.name.startswith("incentive_fleet") and not record.exc_info]
    assert len(told) == 1
    if WAYS[way].send is login:
        assert WRONG[case] in vars(told[0])["why"]
