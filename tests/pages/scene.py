"""The console as a person meets it in tests: its pages by name, letters to look at, and what every page must be.

Addresses with handles in them are sealed with the key that the console under test has, as its own links are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Page

from incentive_fleet.console.pages.handles import seal
from incentive_fleet.dead_letters import bulk_edit
from incentive_fleet.dead_letters.audit import Attribution
from incentive_fleet.dead_letters.edit_plan import EditPlan
from incentive_fleet.dead_letters.runs import list_runs
from incentive_fleet.ledger.connection import connect
from incentive_fleet.settings import Settings
from tests.dead_letter_world import LetterDatabase, arrival, order
from tests.parts import ROOT
from tests.small_world import ODD

Scheme = Literal["light", "dark"]
KEY = "a key of the tests, which seals handles and signs cookies"
PICTURES = ROOT / "build" / "pages"
PICTURE_BYTES_MAX = 60_000  # of one that is kept with the docs
WIDTHS = {"phone": 360, "desk": 1_440}
WRONG_CURRENCY = {
    "fleet-reason": "invalid-field",
    "fleet-detail": "data.currency is 'EURO': a code of ISO 4217 is needed",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """A console with something to show."""

    settings: Settings
    address: str

    def handle(self, kind: Any, value: Any) -> str:
        """As its own pages seal it."""
        return seal(self.settings, kind, value)

    def path(self, name: str) -> str:
        """Where a page of `PAGES` is."""
        return PAGES[name](self)


def stock_letters(url: str) -> None:
    """Letters of three kinds, one of them edited, and a run."""
    database = LetterDatabase(url)
    now = datetime.now(UTC)
    spoilt = [
        arrival(order(number, currency="EURO", coupons=["K"]), name=f"m-{number}", headers=WRONG_CURRENCY)
        for number in range(60)
    ]
    database.keep(*spoilt, at=now - timedelta(hours=3))
    database.keep(
        arrival(b"\xff\xfe no text", name="bytes", headers={"fleet-reason": "not-utf8", "fleet-detail": "byte 0"})
    )
    database.keep(arrival(order("full", order_id="full"), name="again"), at=now)
    with database.connect() as connection:
        ids = [letter.id for letter in database.summaries(reason="invalid-field")][:7]
        bulk_edit.edit_many(
            connection, ids, EditPlan(("data.currency=EUR",)), Attribution("dana", now, "the shop's typo"), None
        )


def a_letter(scene: Scene, **filters: Any) -> int:
    """The number of one that fits."""
    assert scene.settings.database_url is not None
    return LetterDatabase(scene.settings.database_url).summaries(**filters)[0].id


def _run(scene: Scene) -> int:
    assert scene.settings.database_url is not None
    with closing(connect(scene.settings.database_url)) as connection:
        return list_runs(connection)[-1].run_id


PAGES: dict[str, Callable[[Scene], str]] = {
    "status": lambda scene: "/",
    "groups": lambda scene: "/letters",
    "list": lambda scene: f"/letters/list?s={scene.handle('search', {'reason': 'invalid-field'})}",
    "letter": lambda scene: f"/letters/{a_letter(scene, edited=True)}",
    "letter-of-bytes": lambda scene: f"/letters/{a_letter(scene, reason='not-utf8')}",
    "edit": lambda scene: f"/letters/act/edit?s={scene.handle('search', {'reason': 'invalid-field'})}",
    "replay": lambda scene: f"/letters/act/replay?s={scene.handle('search', {'reason': 'invalid-field'})}",
    "discard": lambda scene: f"/letters/act/discard?s={scene.handle('search', {'reason': 'invalid-field'})}",
    "history": lambda scene: "/letters/history",
    "runs": lambda scene: "/runs",
    "run": lambda scene: f"/runs/{_run(scene)}",
    "customers": lambda scene: "/customers",
    "customer": lambda scene: f"/customers/{scene.handle('customer', 'ann')}?lots",
    "customer-odd": lambda scene: f"/customers/{scene.handle('customer', ODD)}",
    "customer-unknown": lambda scene: f"/customers/{scene.handle('customer', 'nobody')}",
    "orders": lambda scene: "/orders",
    "order": lambda scene: f"/orders/{scene.handle('order', 'full')}",
    "order-final": lambda scene: f"/orders/{scene.handle('order', 'picked')}",
    "order-odd": lambda scene: f"/orders/{scene.handle('order', 'odd')}",
    "campaigns": lambda scene: "/campaigns",
    "campaign": lambda scene: "/campaigns/k",
    "waiting": lambda scene: "/waiting",
    "anomalies": lambda scene: "/anomalies",
    "refused": lambda scene: "/customers/too-old",
}


@contextmanager
def looking(browser: Browser, width: int = 1_440, scheme: Scheme = "light", **more: Any) -> Iterator[Page]:
    """A tab in a window of its own; whatever its scripts failed on fails the test."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce", **more
    )
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
    try:
        yield page
    finally:
        context.close()
    assert not faults, faults


def overflow_of(page: Page) -> list[str]:
    """What is wider than the window: nothing must be, or people scroll two ways."""
    found: list[str] = page.evaluate(
        """() => document.documentElement.scrollWidth <= document.documentElement.clientWidth ? [] :
            [...document.querySelectorAll("body *")]
                .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
                .map((one) => one.outerHTML.slice(0, 120)).slice(0, 5)"""
    )
    return found


def stumbles_of(page: Page) -> list[str]:
    """What a screen reader, a keyboard or weak eyes would stumble over, by axe."""
    page.evaluate(AXE)
    found: list[str] = page.evaluate(
        """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations.flatMap((one) =>
            one.nodes.map((node) => `${one.id}: ${node.html.slice(0, 160)} ${node.failureSummary.slice(0, 200)}`))"""
    )
    return found


AXE = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8") + "\n;undefined"


def for_the_docs(page: Page, name: str, height: int = 520, at: str = "body") -> None:
    """What docs/console shows, as build/pages/docs/NAME.png: small enough to be kept with the text."""
    (PICTURES / "docs").mkdir(parents=True, exist_ok=True)
    path = PICTURES / "docs" / f"{name}.png"
    before = page.viewport_size
    page.set_viewport_size({"width": 980, "height": height})
    page.evaluate("(at) => document.querySelector(at).scrollIntoView()", at)
    page.screenshot(path=path)
    if before is not None:
        page.set_viewport_size(before)
    assert path.stat().st_size < PICTURE_BYTES_MAX, path


def picture(page: Page, name: str) -> Path:
    """The whole page as build/pages/NAME.png."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    return path
