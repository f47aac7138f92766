"""Reads what AMQP cannot tell over the management plugin's HTTP API. It never changes anything there.

Counts that it gives lag behind by the plugin's sampling interval, five seconds unless configured otherwise.
"""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Final

import pika

from incentive_fleet.errors import BrokerUnavailable, SettingsError
from incentive_fleet.settings import Settings

TIMEOUT_S: Final = 10

Record = dict[str, object]


def parameters(settings: Settings) -> pika.URLParameters:
    """How to connect over AMQP; raises SettingsError when the URL is missing or cannot be read."""
    url = settings.need_rabbitmq_url()
    try:
        return pika.URLParameters(url)
    except (ValueError, TypeError) as error:
        raise SettingsError(
            f"INCENTIVES_RABBITMQ_URL is not an AMQP URL, amqp://user:password@host/: {error}"
        ) from None


class Management:
    """One virtual host seen through the API. Credentials come from its URL or, if it has none, from the AMQP URL."""

    def __init__(self, settings: Settings) -> None:
        amqp = parameters(settings)
        credentials = amqp.credentials
        assert isinstance(credentials, pika.PlainCredentials)  # a URL can give no other
        parts = urllib.parse.urlsplit(settings.rabbitmq_management_url or "")
        user = urllib.parse.unquote(parts.username or "") or credentials.username
        password = urllib.parse.unquote(parts.password or "") or credentials.password
        self._authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        host = parts.netloc.rpartition("@")[2]
        self._base = f"{parts.scheme}://{host}{parts.path.rstrip('/')}/api"
        self._vhost = urllib.parse.quote(amqp.virtual_host, safe="")

    def _read(self, path: str) -> list[Record]:
        request = urllib.request.Request(f"{self._base}/{path}", headers={"Authorization": self._authorization})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                records: list[Record] = json.load(response)
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
            raise BrokerUnavailable(f"RabbitMQ management API at {self._base}: {error!r}") from error
        return records

    def exchanges(self) -> dict[str, Record]:
        """Every exchange by name; raises BrokerUnavailable."""
        return {str(record["name"]): record for record in self._read(f"exchanges/{self._vhost}")}

    def queues(self) -> dict[str, Record]:
        """Every queue by name; raises BrokerUnavailable."""
        return {str(record["name"]): record for record in self._read(f"queues/{self._vhost}")}

    def bindings(self) -> set[tuple[str, str, str]]:
        """(exchange, queue, routing key) of every binding to a queue; raises BrokerUnavailable."""
        return {
            (str(record["source"]), str(record["destination"]), str(record["routing_key"]))
            for record in self._read(f"bindings/{self._vhost}")
            if record["destination_type"] == "queue"
        }
