"""People without a mouse, people who watch, people who may not: what the console lets each of them do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import httpx2
import pytest
from markupsafe import escape
from playwright.sync_api import Browser, Page, expect

from incentive_fleet.ledger.anomalies import list_anomalies
from incentive_fleet.ledger.api_tokens import create_token
from incentive_fleet.ledger.connection import connect
from tests.dead_letter_world import LetterDatabase, arrival
from tests.pages.scene import PAGES, Scene, looking
from tests.small_world import ODD

TABS_MAX = 60
LIVE_MS = 60_000


def _focused(page: Page) -> str:
    """What has the focus, by its text or label, and whether it can be seen to have it."""
    told: list[str] = page.evaluate(
        """() => { const one = document.activeElement;
                   return [one.innerText || one.getAttribute("aria-label") || (one.labels ? one.labels[0].innerText : ""),
                           getComputedStyle(one).outlineStyle]; }"""
    )
    text, outline = told
    assert outline != "none", f"{text!r} has the focus and does not show it"
    return text.strip()


def _tab_to(page: Page, wanted: str) -> None:
    for _ in range(TABS_MAX):
        page.keyboard.press("Tab")
        if re.search(wanted, _focused(page)):
            return
    raise AssertionError(f"no Tab leads to {wanted}")


def test_an_anomaly_is_resolved_by_keyboard_alone(browser: Browser, scene: Scene) -> None:
    assert scene.settings.database_url is not None
    with looking(browser) as page:
        page.goto(scene.address + "/")
        page.keyboard.press("Tab")
        assert _focused(page) == "Skip to the content"
        _tab_to(page, "^Anomalies$")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Anomalies")
        _tab_to(page, "^What came of it")
        page.keyboard.type("the shop has corrected it")
        _tab_to(page, "^Resolve$")
        page.keyboard.press("Enter")
        expect(page.get_by_text("It is resolved, in your name.")).to_be_visible()
    with closing(connect(scene.settings.database_url)) as connection:
        resolved = [one for one in list_anomalies(connection, include_resolved=True) if one.resolved_at]
    assert [one.resolution for one in resolved] == ["the shop has corrected it"]


def test_the_skip_link_leads_to_the_content(browser: Browser, scene: Scene) -> None:
    with looking(browser) as page:
        page.goto(scene.address + "/campaigns")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert _focused(page) == "dinar", "the first link of the content comes next"


def test_the_status_is_live(browser: Browser, scene: Scene) -> None:
    assert scene.settings.database_url is not None
    with looking(browser) as page:
        page.goto(scene.address + "/")
        expect(page.get_by_text("live", exact=True)).to_be_visible(timeout=LIVE_MS)
        fresh = arrival(b"[]", name="fresh", headers={"fleet-reason": "not-an-object", "fleet-detail": "a list"})
        LetterDatabase(scene.settings.database_url).keep(fresh, at=datetime.now(UTC))
        expect(page.get_by_text("not-an-object")).to_be_visible(timeout=LIVE_MS)
        expect(page.get_by_role("img", name=re.compile("^Open dead letters over"))).to_be_visible(timeout=LIVE_MS)


def test_moments_are_in_the_zone_and_amounts_in_the_words_of_the_visitor(browser: Browser, scene: Scene) -> None:
    with looking(browser, locale="de-DE", timezone_id="Asia/Tokyo") as page:
        page.goto(scene.address + scene.path("customer"))
        expect(page.get_by_text("7,31\u00a0EUR").first).to_be_visible()
        expect(page.locator("time").first).to_have_text(re.compile(r"^\d{2}\.\d{2}\.20\d{2}, \d{2}:\d{2}$"))
        noon = page.locator("time[datetime^='2026-01-30T12:00']").first
        expect(noon).to_have_text("30.01.2026, 21:00")


def test_without_scripts_every_page_is_there(browser: Browser, scene: Scene) -> None:
    with looking(browser, java_script_enabled=False) as page:
        page.goto(scene.address + scene.path("customer"))
        expect(page.get_by_text("2026-01-30 12:00 UTC").first).to_be_visible()
        page.goto(scene.address + scene.path("edit"))
        page.get_by_label("Path").first.fill("data.currency")
        page.get_by_label("Value").first.fill("EUR")
        page.get_by_role("button", name="Preview").click()
        expect(page.get_by_text("would be changed and taken by their queues")).to_be_visible()
        page.get_by_role("button", name=re.compile("^Edit ")).click()
        expect(page.get_by_role("heading", level=1)).to_contain_text(": edit")


@pytest.fixture
def as_role(scene: Scene) -> Iterator[dict[str, httpx2.Client]]:
    """A program for each role, which asks for pages as a browser does."""
    assert scene.settings.database_url is not None
    clients = {}
    for role in ("viewer", "support", "operator", "approver"):
        with closing(connect(scene.settings.database_url)) as connection:
            name = f"incentives_{role}"
            _, token = create_token(connection, role, [name], "test", datetime.now(UTC), 1)
        headers = {"Authorization": f"Bearer {token}", "Accept": "text/html"}
        clients[role] = httpx2.Client(base_url=scene.address, headers=headers, timeout=30)
    yield clients
    for client in clients.values():
        client.close()


FOR_ALL = {"status", "groups", "list", "letter", "letter-of-bytes", "history", "runs", "run"}
FOR_OPERATORS = {"edit", "replay", "discard"}
ODD_ANSWERS = {"customer-unknown": 404, "refused": 422}


def test_each_role_gets_the_pages_that_are_theirs(scene: Scene, as_role: dict[str, httpx2.Client]) -> None:
    for role, client in as_role.items():
        for name in PAGES:
            theirs = name in FOR_ALL or (role == "operator" if name in FOR_OPERATORS else role != "viewer")
            answer = client.get(scene.path(name))
            assert answer.status_code == (ODD_ANSWERS.get(name, 200) if theirs else 403), f"{name} for {role}"
            assert theirs or "role-missing" in answer.text


def test_what_is_not_theirs_is_not_shown_and_refused_anyway(scene: Scene, as_role: dict[str, httpx2.Client]) -> None:
    assert 'href="/customers"' not in as_role["viewer"].get("/").text
    letter = scene.path("letter")
    assert "Bodies and histories take the role incentives_support" in as_role["viewer"].get(letter).text
    shown = as_role["support"].get(letter).text
    assert "customer_id" in shown
    assert "<textarea" not in shown
    selection = {"s": scene.handle("search", {"reason": "invalid-field"}), "because": "mine"}
    for role in ("viewer", "support", "approver"):
        for act in ("replay", "discard", "edit", "restore"):
            assert as_role[role].post(f"/letters/act/{act}", data=selection).status_code == 403
        assert as_role[role].post("/letters/rehearse", data=selection).status_code == 403
        assert as_role[role].post("/anomalies/resolve", data={"anomaly": "x", "because": "y"}).status_code == 403


def test_two_have_to_look(scene: Scene, as_role: dict[str, httpx2.Client]) -> None:
    asked = {"s": scene.handle("search", {"reason": "not-utf8"}), "because": "noise", "needs_approval": "1"}
    begun = as_role["operator"].post("/letters/act/discard", data=asked)
    run = begun.headers["location"]
    assert "waits for approval" in as_role["operator"].get(run).text
    assert as_role["operator"].post(run + "/approve").status_code == 403
    assert "Approve it" in as_role["approver"].get(run).text
    assert as_role["approver"].post(run + "/approve").status_code == 303
    told = as_role["viewer"].get(run).text
    assert "waits for a process" in told
    assert "approver" in told


def test_letters_that_come_after_an_acts_page_are_left_alone(scene: Scene, as_role: dict[str, httpx2.Client]) -> None:
    assert scene.settings.database_url is not None
    database, client = LetterDatabase(scene.settings.database_url), as_role["operator"]

    def keep(*names: str) -> None:
        headers = {"fleet-reason": "late", "fleet-detail": "d"}
        copies = [arrival(name.encode(), name=name, headers=headers) for name in names]
        database.keep(*copies, at=datetime.now(UTC))

    keep("a", "b")
    selected = {"s": scene.handle("search", {"reason": "late"}), "act": "discard"}
    chosen = client.post("/letters/choose", data=selected).headers["location"]
    keep("c")
    assert "Discard 2 dead letters" in client.get(chosen).text
    asked = {"s": chosen.partition("?s=")[2], "because": "noise"}
    run = client.post("/letters/act/discard", data=asked).headers["location"]
    assert "0 of 2 letters are done with" in client.get(run).text


def test_an_act_says_what_it_needs(scene: Scene, as_role: dict[str, httpx2.Client]) -> None:
    client, selection = as_role["operator"], scene.handle("search", {"reason": "conflict"})
    nothing = scene.handle("search", {"reason": "of nobody"})
    wrong = (
        ("/letters/act/discard", {"s": selection}, "reason-missing"),
        ("/letters/act/discard", {"s": nothing, "because": "noise"}, "nothing-selected"),
        ("/letters/act/replay", {"s": selection, "rate": "fast"}, "bad-field"),
        ("/letters/act/edit", {"s": selection}, "bad-field"),
        ("/letters/act/edit", {"s": selection, "kind": "set", "path": "a..b", "value": "1"}, "bad-assignment"),
        ("/letters/act/purge", {"s": selection}, "not-found"),
        ("/letters/find", {"group": "many"}, "bad-field"),
        ("/customers/find", {"customer": " "}, "bad-field"),
        ("/anomalies/resolve", {"anomaly": selection, "because": "x"}, "link-expired"),
    )
    for path, data, reason in wrong:
        answer = client.post(path, data=data)
        assert (answer.status_code, reason in answer.text) in {(422, True), (404, True)}, (path, data, answer.text)


def test_no_name_is_in_an_address(scene: Scene, as_role: dict[str, httpx2.Client]) -> None:
    client = as_role["operator"]
    for where, name, text in (
        ("customers", "customer", "ann"),
        ("customers", "customer", ODD),
        ("orders", "order", "full"),
    ):
        found = client.post(f"/{where}/find", data={name: text})
        assert (found.status_code, text in found.headers["location"].split("/")[-1]) == (303, False)
        assert str(escape(text)) in client.get(found.headers["location"]).text, "blanks around a name are part of it"
    searched = client.post("/letters/find", data={"customer": "c-1", "status": "any"}).headers["location"]
    assert "c-1" not in searched
    assert "1 found" in client.get(searched).text
    cut = client.get("/customers/" + scene.handle("customer", "ann")[:-5])
    assert (cut.status_code, "link-expired" in cut.text) == (422, True)
    wrong = client.get("/customers/" + scene.handle("order", "full"))
    assert (wrong.status_code, "link-expired" in wrong.text) == (422, True)
