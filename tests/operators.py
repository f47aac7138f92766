"""What an operator does to a broker behind the fleet's back."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

from incentive_fleet.settings import Settings


@contextmanager
def policy(settings: Settings, kind: str, definition: dict[str, object], **more: object) -> Iterator[None]:
    """A policy of the broker's operator for everything of this prefix, for as long as the body runs."""
    assert settings.rabbitmq_management_url is not None
    url = urlsplit(settings.rabbitmq_management_url)
    path = f"/api/{kind}/%2F/{settings.prefix}"
    body = {"pattern": f"^{settings.prefix}\\.", "definition": definition, "apply-to": "queues", **more}
    login = {"Authorization": f"Basic {base64.b64encode(b'guest:guest').decode()}"}

    def ask(method: str, document: object = None) -> None:
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
        with closing(connection):
            connection.request(method, path, json.dumps(document), login | {"Content-Type": "application/json"})
            assert connection.getresponse().status in {201, 204}

    ask("PUT", body)
    try:
        yield
    finally:
        ask("DELETE")
