"""How RabbitMQ proves who it is, and how we do: one reading of settings and URL for pika, kombu and the management API.

A certificate is always verified, by its authority and by the name of the host. There is no setting that turns this off.
"""

from __future__ import annotations

import ast
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from incentive_fleet.addresses import ClusterAddress
from incentive_fleet.brokers.rabbitmq import address
from incentive_fleet.errors import SettingsError
from incentive_fleet.settings import Settings, variable

# pika's name of an option of the URL's `ssl_options`, and ours
NAMES: Final[Mapping[str, str]] = {
    "ca_certs": "ca_file",
    "cafile": "ca_file",
    "certfile": "certificate_file",
    "keyfile": "key_file",
    "ciphers": "ciphers",
    "server_hostname": "server_name",
}
FILES: Final = ("ca_file", "certificate_file", "key_file")


@dataclass(frozen=True, slots=True)
class Tls:
    """Files are PEM, by their paths."""

    ca_file: str | None = None  # the authorities to believe; the system's where there is none
    certificate_file: str | None = None  # ours, for a broker that asks for one
    key_file: str | None = None  # of it; None where the file above holds it too
    ciphers: str | None = None
    server_name: str | None = None  # that the certificate must have; the host's where there is none

    def context(self) -> ssl.SSLContext:
        """For pika and the management API. Raises SettingsError for a file that cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise _unusable("rabbitmq_ca_file", self.ca_file, error) from None
        if self.certificate_file:
            try:
                context.load_cert_chain(self.certificate_file, self.key_file, password=_no_password)
            except OSError as error:
                raise _unusable("rabbitmq_certificate_file", self.certificate_file, error) from None
        if self.ciphers:
            context.set_ciphers(self.ciphers)
        return context

    def for_kombu(self, host: str) -> dict[str, Any]:
        """What kombu's driver makes the same context of."""
        given = {
            "ca_certs": self.ca_file,
            "certfile": self.certificate_file,
            "keyfile": self.key_file,
            "ciphers": self.ciphers,
        }
        known = {name: value for name, value in given.items() if value}
        return {"server_hostname": self.server_name or host, "cert_reqs": ssl.CERT_REQUIRED, **known}


def tls_of(where: ClusterAddress, settings: Settings | None = None) -> Tls:
    """What the settings say, and before them the `ssl_options` of the URL. Raises SettingsError, without any value of the URL."""
    chosen = {name: getattr(settings, f"rabbitmq_{name}", None) for name in FILES}
    return Tls(**(chosen | _options(where)))


def check(settings: Settings) -> None:
    """Raises SettingsError for files that cannot be used, and for those that nothing would use."""
    where, api = address.amqp(settings), address.management(settings)
    given = [variable(f"rabbitmq_{name}") for name in FILES if getattr(settings, f"rabbitmq_{name}")]
    if settings.rabbitmq_key_file and not settings.rabbitmq_certificate_file:
        raise SettingsError("INCENTIVES_RABBITMQ_KEY_FILE is set without INCENTIVES_RABBITMQ_CERTIFICATE_FILE.")
    if given and not where.secure and (api is None or not api.secure):
        raise SettingsError(
            f"{given[0]} is set, but {address.AMQP} begins with amqp://, which is not encrypted: amqps:// is."
        )
    if given:  # the system's authorities, which every process would read, are read once a connection needs them
        Tls(*(getattr(settings, f"rabbitmq_{name}") for name in FILES)).context()


def _options(where: ClusterAddress) -> dict[str, str]:
    text = dict(parse_qsl(where.query)).get("ssl_options")
    if text is None:
        return {}
    try:
        options = dict(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError):
        raise SettingsError(f"{address.AMQP} has ssl_options that are no dictionary of Python.") from None
    if not options.keys() <= NAMES.keys():
        raise SettingsError(f"{address.AMQP} has ssl_options beyond {', '.join(NAMES)}.")
    return {NAMES[name]: str(value) for name, value in options.items()}


def _no_password() -> str:
    """A key that has a password is refused; without this OpenSSL would ask for it on the terminal."""
    return ""


def _unusable(setting: str, path: str | None, error: OSError) -> SettingsError:
    why = getattr(error, "reason", None) or error.strerror or type(error).__name__
    return SettingsError(f"{variable(setting)} is {path!r}: {why}.")
