"""The console answers: what it shows to whom, and what it says when a part is away."""

from __future__ import annotations

from incentive_fleet.settings import Settings
from tests.console_world import client_of


def test_the_first_page_is_served_with_the_headers_that_keep_a_browser_in_bounds(database_url: str) -> None:
    with client_of(Settings(database_url=database_url)) as client:
        answer = client.get("/", headers={"Accept": "text/html"})
    assert answer.status_code == 200
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
