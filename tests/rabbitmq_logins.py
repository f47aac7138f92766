"""Logins of RabbitMQ with the permissions that a test says, by the management API as its administrator."""

from __future__ import annotations

import base64
import json
import urllib.request
from urllib.parse import quote, urlsplit

from incentive_fleet.embedded.rabbitmq import RabbitMQ

ADMINISTRATOR = base64.b64encode(b"guest:guest").decode()
ALL = {"configure": ".*", "write": ".*", "read": ".*"}


def put(rabbitmq: RabbitMQ, path: str, body: dict[str, str]) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{urlsplit(rabbitmq.management_url).port}/api/{path}",
        json.dumps(body).encode(),
        {"Authorization": f"Basic {ADMINISTRATOR}", "Content-Type": "application/json"},
        method="PUT",
    )
    urllib.request.urlopen(request, timeout=30).close()


def make_login(
    rabbitmq: RabbitMQ, name: str, password: str, permissions: dict[str, str], *, tags: str = ""
) -> tuple[str, str]:
    """The addresses of AMQP and of the management API for a new login."""
    put(rabbitmq, f"users/{name}", {"password": password, "tags": tags})
    put(rabbitmq, f"permissions/%2F/{name}", permissions)
    login = f"{name}:{quote(password, safe='')}@127.0.0.1"
    amqp, api = urlsplit(rabbitmq.url), urlsplit(rabbitmq.management_url)
    return f"amqp://{login}:{amqp.port}/%2F", f"http://{login}:{api.port}"
