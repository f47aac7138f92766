"""Settings, read once at the entry point from the environment into a frozen object. Nothing else reads the environment.

Every setting has a default with its unit in the name, but for the addresses of the parts, which have none: a command that
needs one asks with `need_...` and a missing one is named in one sentence.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from incentive_fleet.addresses import AWS, MANAGEMENT, OTLP, POSTGRES, RABBITMQ, SENTRY, check_address, holds_login
from incentive_fleet.allowed_sources import read_allowed_sources
from incentive_fleet.errors import SettingsError
from incentive_fleet.reply_addresses import ANSWERED_ANYWAY, read_reply_addresses

PREFIX = "INCENTIVES_"
ADDRESSES = {
    "database_url": POSTGRES,
    "admin_database_url": POSTGRES,
    "read_database_url": POSTGRES,
    "rabbitmq_url": RABBITMQ,
    "rabbitmq_management_url": MANAGEMENT,
    "otlp_endpoint": OTLP,
    "sentry_dsn": SENTRY,
    "aws_endpoint_url": AWS,
}
SECRETS = frozenset({"oidc_client_secret", "session_key"})  # besides what addresses hold
ENDPOINTS_OF_BOTO3 = (
    "AWS_ENDPOINT_URL_SQS",
    "AWS_ENDPOINT_URL_SNS",
    "AWS_ENDPOINT_URL_CLOUDWATCH",
)  # it reads them by itself
_OURS = "Value error, "  # what pydantic puts before the words of a check of ours
NOT_OURS = {
    "aws_region": "AWS_REGION",
    "aws_endpoint_url": "AWS_ENDPOINT_URL",
    "aws_ca_bundle": "AWS_CA_BUNDLE",
}  # settings with a name of AWS's own
MIB = 1024 * 1024
EVENT_BYTES_MOST = 16 * MIB  # what the codec reads at the most; the largest order, every character escaped, has 14 MiB

AWS_MANAGED_KEYS = (
    "alias/aws/"  # what AWS's own keys are called; their policies let no other service in, and never change
)

Seconds = Annotated[float, Field(gt=0, le=43_200)]  # 12 h: the longest visibility timeout that SQS grants


class Settings(BaseModel):
    """One field a setting; the environment variable is INCENTIVES_ and the field's name in upper case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: str | None = None
    admin_database_url: str | None = None
    rabbitmq_url: str | None = None
    rabbitmq_management_url: str | None = None
    aws_endpoint_url: str | None = None  # from AWS_ENDPOINT_URL; boto3 reads it as well
    aws_region: str | None = Field(None, pattern=r"^[A-Za-z0-9-]{1,63}$")  # from AWS_REGION or AWS_DEFAULT_REGION

    aws_ca_bundle: str | None = None  # from AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE, as botocore does

    # PEM files by their paths. Certificates are verified always; these say whom to believe, and who we are.
    rabbitmq_ca_file: str | None = None
    rabbitmq_certificate_file: str | None = None
    rabbitmq_key_file: str | None = None

    prefix: str = Field("incentives", pattern=r"^[A-Za-z0-9_-]{1,40}$")  # of every topic, queue and exchange
    batch_size: int = Field(500, ge=1, le=5_000)  # deliveries in one transaction at the most
    wait_s: float = Field(1.0, gt=0, le=20)  # long poll; SQS allows at most 20 s
    gather_s: float = Field(0.02, ge=0, le=1)  # from the beginning of a batch of a few to that of the next one
    prefetch: int = Field(
        2_000, ge=1, le=65_535
    )  # unacknowledged deliveries a RabbitMQ channel holds; 16 bits on the wire
    # Bytes that a consumer holds unsettled, counted as decoded (brokers/budget.py); dead letters and files in hand likewise.
    held_bytes_max: int = Field(64 * MIB, ge=MIB, le=65_536 * MIB)
    event_bytes_max: int = Field(EVENT_BYTES_MOST, ge=1_024, le=EVENT_BYTES_MOST)  # larger bodies are dead letters
    approval_letters: int | None = Field(None, ge=1, le=100_000)  # acts on more letters wait for another one's approval
    approval_minor: int | None = Field(None, ge=0, le=10**15)  # ... and replays that would book more of a currency
    allowed_sources: str | None = None  # CloudEvent sources by queue (allowed_sources.py); unset: all are
    # Of quote requests, beside what is named here none (reply_addresses.py).
    allowed_reply_addresses: str = ANSWERED_ANYWAY
    sqs_pollers: int = Field(4, ge=1, le=32)  # receiving threads a process
    sqs_visibility_s: int = Field(30, ge=1, le=43_200)
    cloudwatch_ages: Literal["on", "off"] = "on"  # ask CloudWatch how old the oldest message of each queue is
    kms_key_id: str | None = Field(None, pattern=r"^[A-Za-z0-9:/_-]{1,256}$")  # id, ARN or alias; queues and topics
    retry_delays_s: tuple[Seconds, ...] = Field((5, 30, 120, 600), min_length=1, max_length=10)  # unexpected errors
    pause_max_s: float = Field(30, gt=0, le=600)  # longest back-off while a broker is away; towards a database 2 s
    drain_s: float = Field(25, gt=0, le=600)  # SIGTERM to exit; Kubernetes and ECS kill after 30 s
    expiry_grace_hours: int = Field(24, ge=0, le=8_760)  # rules 8.3
    health_port: int | None = Field(None, ge=0, le=65_535)  # unset: no health server
    otlp_endpoint: str | None = None  # metrics and traces are sent to its /v1/metrics and /v1/traces
    sentry_dsn: str | None = None  # where unexpected errors are sent
    sentry_environment: str | None = Field(
        None, pattern=r"^[^\s/]{1,64}$"
    )  # what Sentry takes; unset: its own, production
    sentry_release: str | None = Field(None, pattern=r"^[^\s/]{1,200}$")  # unset: incentive-fleet@ and the version
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = "auto"  # auto: text on a terminal, JSON elsewhere (logs.py)
    health_host: str = "127.0.0.1"  # 0.0.0.0 where an orchestrator asks from outside the container

    # The console (`incentives serve`).
    serve_host: str = "127.0.0.1"  # anything else takes a login
    serve_port: int = Field(8_000, ge=0, le=65_535)
    serve_proxies: int = Field(0, ge=0, le=9)  # of ours between people and it, which write X-Forwarded-For
    read_database_url: str | None = None  # a replica for what only reads; unset: the ledger itself
    public_url: str | None = Field(None, pattern=r"^https?://[^/?#@\s]+$")  # as people type it; logins come back to it
    oidc_issuer: str | None = Field(None, pattern=r"^https?://[^?#@\s]+$")  # unset: no login, and loopback only
    oidc_client_id: str | None = Field(None, min_length=1, max_length=256)
    oidc_client_secret: str | None = Field(None, min_length=1, max_length=1_024)
    oidc_roles_claim: str = Field(
        "groups", pattern=r"^[A-Za-z0-9_.:/-]{1,128}$"
    )  # of the id token; names roles of ours
    session_key: str | None = Field(None, min_length=32, max_length=1_024)  # signs the cookies of all processes alike
    session_hours: int = Field(8, ge=1, le=72)
    requests_per_s: int = Field(300, ge=1, le=10_000)  # of one visitor; twice as many at once

    @field_validator("retry_delays_s", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("kms_key_id")
    @classmethod
    def _usable(cls, key: str | None) -> str | None:
        if key is not None and key.rpartition(":")[2].startswith(AWS_MANAGED_KEYS):
            raise ValueError("AWS's own key lets no topic deliver to a queue; name a key of yours")
        return key

    @field_validator("allowed_sources")
    @classmethod
    def _readable(cls, sources: str | None) -> str | None:
        if sources is not None:
            read_allowed_sources(sources)
        return sources

    @field_validator("allowed_reply_addresses")
    @classmethod
    def _addresses(cls, addresses: str) -> str:
        read_reply_addresses(addresses)
        return addresses

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings; raises SettingsError naming the variable and its value, but for addresses, which may hold a
        password. Unset and empty are the same."""
        values: dict[str, str] = {}
        for name in cls.model_fields:
            value = environment.get(PREFIX + name.upper(), "")
            if value:
                values[name] = value
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
        endpoint = environment.get("AWS_ENDPOINT_URL")
        values |= {"aws_region": region} if region else {}
        values |= {"aws_endpoint_url": endpoint} if endpoint else {}
        bundle = environment.get("AWS_CA_BUNDLE") or environment.get("REQUESTS_CA_BUNDLE")
        if bundle and (region or endpoint):
            values["aws_ca_bundle"] = bundle
            _check_authorities("AWS_CA_BUNDLE" if environment.get("AWS_CA_BUNDLE") else "REQUESTS_CA_BUNDLE", bundle)
        for name, value in values.items():
            if name in ADDRESSES:
                check_address(variable(name), value, ADDRESSES[name])
            elif name != "allowed_sources" and holds_login(value):  # a source may look like one
                raise _misplaced(variable(name))
        for name in ENDPOINTS_OF_BOTO3:
            if environment.get(name):
                check_address(name, environment[name], AWS)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _wrong(error, values) from None

    def need_database_url(self) -> str:
        """The application's database; raises SettingsError when unset."""
        if not self.database_url:
            raise SettingsError("INCENTIVES_DATABASE_URL is not set: it names the Postgres database, postgresql://...")
        return self.database_url

    def need_owner_urls(self) -> tuple[str, str | None]:
        """The owner's database and, where that is another address, the application's; raises SettingsError when unset."""
        application = self.need_database_url()
        return (self.admin_database_url, application) if self.admin_database_url else (application, None)

    def need_rabbitmq_url(self) -> str:
        """The RabbitMQ broker; raises SettingsError when unset."""
        if not self.rabbitmq_url:
            raise SettingsError("INCENTIVES_RABBITMQ_URL is not set: it names the RabbitMQ broker, amqp://...")
        return self.rabbitmq_url

    def need_aws_region(self) -> str:
        """The AWS region of topics and queues; raises SettingsError when unset."""
        if not self.aws_region:
            raise SettingsError(
                "AWS_REGION is not set: it names the region of the topics and queues, like eu-central-1."
            )
        return self.aws_region


def _check_authorities(setting: str, path: str) -> None:
    """Raises SettingsError unless certificates of authorities can be read there: botocore would only say so in each call."""
    if holds_login(path):
        raise _misplaced(setting)
    folder = os.path.isdir(path)
    try:
        ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)
    except OSError as error:
        why = getattr(error, "reason", None) or error.strerror or type(error).__name__
        raise SettingsError(f"{setting} is {path!r}: {why}.") from None


def _wrong(error: ValidationError, values: Mapping[str, str]) -> SettingsError:
    """The setting, its value and what is the matter, the value only where it is no secret and nobody's password is in it."""
    first = error.errors()[0]
    name, fault = str(first["loc"][0]), first["msg"].removeprefix(_OURS)
    if holds_login(values[name]):
        return _misplaced(variable(name))
    found = "refused" if name in SECRETS else repr(first["input"])
    return SettingsError(f"{variable(name)} is {found}: {fault}.")


def _misplaced(setting: str) -> SettingsError:
    return SettingsError(f"{setting} holds an address with a login, which has no place there.")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return NOT_OURS.get(name) or PREFIX + name.upper()
