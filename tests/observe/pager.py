"""PagerDuty and Opsgenie as Alertmanager sees them: one HTTP server that takes their calls, and refuses what they would.

It remembers what rang and what cleared, by the alert's name. It never calls anybody.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal

from tests.http_listener import serving_http

What = Literal["rings", "clears"]


@dataclass(frozen=True, slots=True)
class Call:
    """One word of the pager's about an alert."""

    service: str  # pagerduty or opsgenie
    what: What
    alert: str
    text: str  # what whoever is woken reads; nothing where it clears


@dataclass(slots=True)
class Pager:
    """What it was told so far. Any thread."""

    port: int = 0
    calls: list[Call] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # what the real services would have answered 4xx to
    _names: dict[str, str] = field(default_factory=dict)  # Opsgenie closes by alias alone
    _told: threading.Condition = field(default_factory=threading.Condition)

    def last(self, alert: str) -> Call | None:
        """The last word about it."""
        return next((call for call in reversed(self.calls) if call.alert == alert), None)

    def ringing(self) -> set[str]:
        """Alerts whose last word is no end."""
        return {call.alert for call in list(self.calls) if call == self.last(call.alert) and call.what == "rings"}

    def await_(self, alert: str, what: What, words: Sequence[str], within_s: float) -> None:
        """Wait until that is the last word about the alert, with all these in it. Fails after so many seconds."""

        def heard() -> bool:
            last = self.last(alert)
            return last is not None and last.what == what and all(one in last.text for one in words)

        with self._told:
            assert self._told.wait_for(heard, within_s), (
                f"{alert} {what} {words} not within {within_s:g} s; heard: {self.calls}; refused: {self.refused}"
            )

    def take(self, path: str, body: dict[str, Any]) -> HTTPStatus:
        """What a service answers."""
        call = self._pagerduty(body) if path == "/pagerduty" else self._opsgenie(path, body)
        with self._told:
            if call is None or (call.what == "rings" and not call.text.strip()):
                self.refused.append(f"{path} {body}")
                return HTTPStatus.BAD_REQUEST
            self.calls.append(call)
            self._told.notify_all()
        return HTTPStatus.ACCEPTED

    @staticmethod
    def _pagerduty(body: dict[str, Any]) -> Call | None:
        """Events API v2: an event without a key, a deduplication key, a link's text or, to trigger, a summary is refused."""
        if not (
            body["routing_key"] == "pagerduty's" and body["dedup_key"] and all(one["text"] for one in body["links"])
        ):
            return None
        name = _name(body["links"][0]["href"])
        what: What = "rings" if body["event_action"] == "trigger" else "clears"
        return None if name is None else Call("pagerduty", what, name, body["payload"]["summary"])

    def _opsgenie(self, path: str, body: dict[str, Any]) -> Call | None:
        """Alert API: `POST /v2/alerts` opens under an alias, `POST /v2/alerts/ALIAS/close` closes."""
        if closes := re.fullmatch(r"/opsgenie/v2/alerts/(\w+)/close\?identifierType=alias", path):
            known = self._names.get(closes[1])
            return None if known is None else Call("opsgenie", "clears", known, "")
        if path != "/opsgenie/v2/alerts" or not (name := _name(body["details"]["runbook"])):
            return None
        self._names[body["alias"]] = name
        return Call("opsgenie", "rings", name, body["message"])


def _name(runbook: str) -> str | None:
    found = re.search(r"docs/runbooks/(\w+)\.md$", runbook)
    return found and found[1]


@contextmanager
def listening() -> Iterator[Pager]:
    """A pager at a free port of the loopback."""
    pager = Pager()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(pager.take(self.path, body))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with serving_http(Handler) as pager.port:
        yield pager
