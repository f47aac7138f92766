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
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final

from incentive_fleet.brokers.rabbitmq import address
from incentive_fleet.brokers.rabbitmq.policies import Policies, Policy
from incentive_fleet.brokers.rabbitmq.tls import tls_of
from incentive_fleet.certificates import certificate_fault
from incentive_fleet.errors import BrokerUnavailable, SettingsError
from incentive_fleet.settings import Settings

TIMEOUT_S: Final = 10
REFUSED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)

Record = dict[str, Any]


class _Stay(urllib.request.HTTPRedirectHandler):
    """No redirect is followed: urllib would take the login along to wherever it leads."""

    def redirect_request(self, *_: object) -> None:
        return None


class NotAllowed(BrokerUnavailable):
    """The login may not read this; a person must grant it a tag. The rest of the API may still answer."""


class Management:
    """One virtual host seen through the API of the first node that answers.

    Credentials come from its URL or, if it has none, from the AMQP URL. Raises SettingsError when a URL is missing or wrong.
    """

    def __init__(self, settings: Settings) -> None:
        amqp, api = address.amqp(settings), address.management(settings)
        if api is None:
            raise SettingsError(f"{address.MANAGEMENT} is not set: it names the management API, http://...")
        user = api.user or amqp.user or "guest"  # RabbitMQ's own, for a URL without a login
        password = api.password or amqp.password or "guest"
        self._authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._bases = [f"{api.scheme}://{node}{api.path.rstrip('/')}/api" for node in api.nodes]
        tls = [urllib.request.HTTPSHandler(context=tls_of(amqp, settings).context())] if api.secure else []
        self._opener = urllib.request.build_opener(_Stay, *tls)
        self._vhost = urllib.parse.quote(amqp.virtual_host, safe="")

    def _read(self, path: str) -> list[Record]:
        records: list[Record] = self._ask(path)[0]
        return records

    def _ask(self, path: str) -> tuple[Any, str]:
        """What the path gives, and the time by the node's clock as its HTTP server writes it."""
        failed: list[str] = []
        for base in self._bases:
            request = urllib.request.Request(f"{base}/{path}", headers={"Authorization": self._authorization})
            try:
                with self._opener.open(request, timeout=TIMEOUT_S) as response:
                    return json.load(response), str(response.headers.get("Date", ""))
            except urllib.error.HTTPError as error:
                error.close()
                told = f"RabbitMQ management API at {base}: HTTP {error.code}"  # its other words are the server's
                if error.code in REFUSED:
                    raise NotAllowed(told) from None
                failed.append(told)
            except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
                failed.append(f"RabbitMQ management API at {base}: {certificate_fault(error) or repr(error)}")
        raise BrokerUnavailable("; ".join(failed))

    def exchanges(self) -> dict[str, Record]:
        """Every exchange by name; raises BrokerUnavailable."""
        return {str(record["name"]): record for record in self._read(f"exchanges/{self._vhost}")}

    def queues(self) -> dict[str, Record]:
        """Every queue by name; raises BrokerUnavailable."""
        return {str(record["name"]): record for record in self._read(f"queues/{self._vhost}")}

    def nodes(self) -> list[Record]:
        """Every node of the cluster; raises BrokerUnavailable, and NotAllowed for a login without the tag monitoring."""
        return self._read("nodes")

    def login(self) -> Record:
        """Whom the API takes us for, with the tags; raises BrokerUnavailable."""
        record: Record = self._ask("whoami")[0]
        return record

    def clock(self) -> datetime:
        """The time of the node that answers, whole seconds; raises BrokerUnavailable when it does not say."""
        said = self._ask("whoami")[1]
        try:
            return parsedate_to_datetime(said)
        except ValueError:
            raise BrokerUnavailable("RabbitMQ management API: it does not say the time") from None

    def policies(self) -> Policies:
        """Every policy of the virtual host; raises BrokerUnavailable, and NotAllowed for a login without the tag."""
        return Policies(
            [_policy(record, operator=False) for record in self._read(f"policies/{self._vhost}")],
            [_policy(record, operator=True) for record in self._read(f"operator-policies/{self._vhost}")],
        )

    def bindings(self) -> set[tuple[str, str, str]]:
        """(exchange, queue, routing key) of every binding to a queue; raises BrokerUnavailable."""
        return {
            (str(record["source"]), str(record["destination"]), str(record["routing_key"]))
            for record in self._read(f"bindings/{self._vhost}")
            if record["destination_type"] == "queue"
        }


def _policy(record: Record, *, operator: bool) -> Policy:
    return Policy(
        str(record["name"]),
        str(record["pattern"]),
        str(record.get("apply-to", "all")),
        record["definition"],
        int(record.get("priority", 0)),
        operator,
    )
