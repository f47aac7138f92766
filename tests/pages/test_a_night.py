"""A night as a person would click it: find the group, edit, rehearse, replay, see it empty; two at once; a broken network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from incentive_fleet.embedded.rabbitmq import RabbitMQ
from tests.contract.brokers_under_test import eventually
from tests.pages.night import Night, open_night
from tests.pages.scene import for_the_docs, looking, overflow_of, picture, stumbles_of

SOON_MS = 60_000  # a fleet looks for runs every five seconds, on a machine that may be busy

expect.set_options(timeout=SOON_MS)


@pytest.fixture
def night(rabbitmq: RabbitMQ, database_url: str, prefix: str, tmp_path: Path) -> Iterator[Night]:
    with open_night(rabbitmq.url, database_url, prefix, tmp_path / "log") as night:
        yield night


def _to_the_group(page: Page, night: Night) -> None:
    page.goto(night.scene.address + "/letters")
    page.get_by_role("link", name=re.compile("^Group ")).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Group")


def _see_done(page: Page, letters: int) -> None:
    expect(page.get_by_text(f"{letters} of {letters} letters are done with")).to_be_visible()
    expect(page.get_by_text("done", exact=True)).to_be_visible()


def _told_money(page: Page) -> dict[str, str]:
    rows = page.locator("#rehearsal table").first.locator("tbody tr")
    cells = [row.locator("td").all_inner_texts() for row in rows.all()]
    return {name.strip(): amount.replace("\u00a0", " ").strip() for name, amount in cells}


def test_a_whole_night(browser: Browser, night: Night) -> None:
    night.spoil(25)
    with looking(browser) as page:
        page.goto(night.scene.address + "/")
        page.get_by_role("link", name="Dead letters", exact=True).click()
        picture(page, "night-1-groups")
        for_the_docs(page, "groups", 400)
        _edit_the_group(page, night)
        _rehearse_the_group(page, night)
        page.get_by_role("button", name="Replay 25 letters").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("replay")
        run = page.url
    # The tab is closed; the fleet goes on.
    eventually(lambda: night.decisions() == 25, 90)
    with looking(browser) as page:
        page.goto(run)
        _see_done(page, 25)
        page.goto(night.scene.address + "/letters")
        expect(page.get_by_text("No dead letter is there.")).to_be_visible()
        picture(page, "night-5-empty")
        _see_the_customer(page)
        _see_the_status(page)


def _edit_the_group(page: Page, night: Night) -> None:
    _to_the_group(page, night)
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Path").first.fill("data.currency")
    page.get_by_label("Value").first.fill("EUR")
    page.get_by_label(re.compile("^Why")).fill("the shop spelt the currency out")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("25 would be changed and taken by their queues")).to_be_visible()
    assert (overflow_of(page), stumbles_of(page)) == ([], [])
    picture(page, "night-2-edit")
    for_the_docs(page, "edit", at="#preview")
    page.get_by_role("button", name="Edit 25 letters").click()
    _see_done(page, 25)
    picture(page, "night-3-edited")


def _rehearse_the_group(page: Page, night: Night) -> None:
    _to_the_group(page, night)
    page.get_by_role("button", name="Replay").click()
    page.get_by_role("button", name="Rehearse now").click()
    expect(page.get_by_text("25 letters would book 50 transfers")).to_be_visible()
    assert _told_money(page) == {"coupon": "25.00 EUR", "earn": "22.50 EUR"}
    assert (overflow_of(page), stumbles_of(page)) == ([], [])
    picture(page, "night-4-rehearsed")
    for_the_docs(page, "rehearsal", at="main section + section")
    assert night.decisions() == 0, "a rehearsal books nothing"


def _see_the_customer(page: Page) -> None:
    """What came of it, for one of them."""
    page.get_by_role("link", name="Customers").click()
    page.get_by_label(re.compile("^Customer")).fill("c-7")
    page.get_by_role("button", name="Look up").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Customer c-7")
    assert "c-7" not in page.url
    expect(page.get_by_text("0.90\u00a0EUR").first).to_be_visible()
    page.get_by_role("link", name=re.compile("placing of order o-7")).click()
    expect(page.get_by_role("heading", name=re.compile("^Placed"))).to_be_visible()
    assert "o-7" not in page.url


def _see_the_status(page: Page) -> None:
    """The first page, with a fleet that works, once it has something to draw."""
    page.get_by_role("link", name="Status", exact=True).click()
    for name in ("^Settled a second over", "^Open dead letters over"):
        expect(page.get_by_role("img", name=re.compile(name))).to_be_visible()
    assert (overflow_of(page), stumbles_of(page)) == ([], [])
    for_the_docs(page, "status", 430)


def test_an_edit_in_bulk_is_undone_as_one(browser: Browser, night: Night) -> None:
    night.spoil(3)
    night.mend()
    with looking(browser) as page:
        _to_the_group(page, night)
        page.get_by_role("button", name="Edit").click()
        page.get_by_label("Path").first.fill("data.coupons[0]")
        page.get_by_label("Value").first.fill("L")
        page.get_by_role("button", name="Preview").click()
        page.get_by_role("button", name="Edit 3 letters").click()
        _see_done(page, 3)
        assert [b'"coupons":["L"]' in letter.current_body for letter in night.letters.letters()] == [True] * 3
        page.get_by_role("button", name="Undo it").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("undo")
        _see_done(page, 3)
    assert [b'"coupons":["K"]' in letter.current_body for letter in night.letters.letters()] == [True] * 3


def test_two_people_at_one_group_send_each_letter_once(browser: Browser, night: Night) -> None:
    night.spoil(10)
    night.mend()
    with looking(browser) as one, looking(browser, 360) as two:
        for page in (one, two):
            _to_the_group(page, night)
            page.get_by_role("button", name="Replay").click()
            expect(page.get_by_role("button", name="Replay 10 letters")).to_be_visible()
        for page in (one, two):
            page.get_by_role("button", name="Replay 10 letters").click()
        for page in (one, two):
            _see_done(page, 10)
        refused = [page.get_by_role("heading", name="Nothing happened to these").count() for page in (one, two)]
        assert refused.count(1) == 1, "what one has sent, the other is told of"
    eventually(lambda: night.decisions() == 10, 60)
    assert {(letter.status, letter.replays) for letter in night.letters.summaries()} == {("replayed", 1)}


def test_two_people_at_one_letter_lose_no_edit(browser: Browser, night: Night) -> None:
    night.spoil(1)
    (letter,) = night.letters.summaries()
    with looking(browser) as one, looking(browser) as two:
        for page in (one, two):
            page.goto(f"{night.scene.address}/letters/{letter.id}")
            body = page.get_by_label("What a replay sends")
            body.fill(body.input_value().replace("EURO", "EUR" if page is one else "USD"))
        one.get_by_role("button", name="Save").click()
        expect(one.get_by_text("edited", exact=True).first).to_be_visible()
        two.get_by_role("button", name="Save").click()
        expect(two.get_by_role("alert")).to_contain_text("was edited by somebody else meanwhile")
    assert b'"EUR"' in night.letters.letter(letter.id).current_body


def test_a_network_that_breaks_in_the_middle_of_a_replay_stops_nothing(browser: Browser, night: Night) -> None:
    night.spoil(25)
    night.mend()
    with looking(browser) as page:
        _to_the_group(page, night)
        page.get_by_role("button", name="Replay").click()
        page.get_by_label(re.compile("^Letters a second")).fill("4")
        page.get_by_role("button", name="Replay 25 letters").click()
        expect(page.get_by_text("under way", exact=True)).to_be_visible()
        for_the_docs(page, "run", 440)
        page.context.set_offline(True)
        expect(page.locator("#lost")).to_be_visible()
        picture(page, "night-offline")
        eventually(lambda: night.decisions() == 25, 90)
        page.context.set_offline(False)
        _see_done(page, 25)
        expect(page.locator("#lost")).to_be_hidden()
