"""A real browser without a screen, a ledger with everything in it, and the console before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.settings import Settings
from tests import small_world
from tests.console_world import console_at
from tests.pages.scene import KEY, Scene, stock_letters
from tests.parts import fresh_database

CHROMIUM = "/usr/bin/chromium"
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these take a browser, or minutes."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.pages)


@pytest.fixture(scope="session", autouse=True)
def _somebody() -> Iterator[None]:
    """Who is at this machine, as the console takes it where nobody logs in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOGNAME", "dana")
        yield


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The distribution's Chromium, which asks nobody but the console for anything."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def scene(postgres: Postgres, database_template: str) -> Iterator[Scene]:
    """The small world with dead letters in it, and the console that shows it."""
    with fresh_database(postgres, database_template) as url:
        small_world.play(url)
        stock_letters(url)
        settings = Settings(database_url=url, session_key=KEY, requests_per_s=1_000)
        with console_at(settings) as address:
            yield Scene(settings, address)
