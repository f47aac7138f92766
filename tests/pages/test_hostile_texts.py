"""What a message holds is shown as text and nothing else: 10,000 hostile ones through the templates, some hundred in a browser."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from playwright.sync_api import Browser, Dialog, Page
from playwright.sync_api import Request as Asked
from starlette.requests import Request

from incentive_fleet.console.pages.shell import fill
from incentive_fleet.console.visitors import EVERYTHING, Visitor
from incentive_fleet.dead_letters.letter import Letter
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.literal import literal
from incentive_fleet.settings import Settings
from tests.console_world import console_at
from tests.dead_letter_world import LetterDatabase, arrival, order
from tests.pages.scene import KEY, Scene, looking
from tests.parts import fresh_database

COUNT = 10_000
ROWS = 50
IN_A_BROWSER = 300
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
PIECES = (
    *(
        "<script>window.pwned=1</script>",
        "<img src=x onerror=window.pwned=1>",
        "<svg/onload=window.pwned=1>",
        "</td></table>",
    ),
    *(
        "\"><b onmouseover='window.pwned=1'>",
        "' autofocus onfocus=window.pwned=1 x='",
        "javascript:window.pwned=1",
        "{{ 7*7 }}",
    ),
    *(
        "{% raw %}",
        "&lt;",
        "&#x3c;script&#x3e;",
        "&amp;amp;",
        "<!--",
        "-->",
        "]]>",
        "<plaintext>",
        "<textarea>",
        "</textarea>",
    ),
    *(
        "</title>",
        "</script>",
        "<style>*{display:none}</style>",
        "<base href=//evil>",
        "<meta http-equiv=refresh content=0>",
    ),
    *(
        "<form action=//evil>",
        "hx-get=/x",
        "<div hx-on:load='window.pwned=1'>",
        "data-hx-get='/'",
        "`${window.pwned=1}`",
    ),
    *(
        "\u202e\u2066gnp.exe",
        "\u200b\u200d",
        "\ufeff",
        "\x1b[31m",
        "\x07",
        "\r\n",
        "\t",
        "\x85\u2028",
        "\U000e0041",
        "zoë 顾客 🎁",
    ),
    *(
        "\\u003cscript\\u003e",
        "%3Cscript%3E",
        "+ADw-script+AD4-",
        "\x00"[:0] + "\x01",
        "'",
        '"',
        "\\",
        "/",
        "&",
        "<",
        ">",
        "=",
    ),
)


def hostile(seed: int, count: int) -> Iterator[str]:
    """Texts made of what has broken pages before, never the same twice."""
    dice = random.Random(seed)
    for number in range(count):
        yield f"{number}:" + "".join(dice.choices(PIECES, k=dice.randint(1, 5)))


class _Read(HTMLParser):
    """As a browser reads it: which elements with which attributes there are, and the text of each cell."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.cells: list[str] = []
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements[tag, tuple(name for name, _ in attributes)] += 1
        if tag == "td":
            self._in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data


def _letter(number: int, text: str) -> Letter:
    """One whose every text is this one."""
    names = (
        "transport",
        "source_queue",
        "dead_letter_queue",
        "reason",
        "detail",
        "group_text",
        "event_type",
        "event_source",
    )
    texts = dict.fromkeys((*names, "event_id", "order_id", "customer_id", "arrival", "claimed_by"), text)
    return Letter(
        **texts,
        id=number,
        body=b"",
        edited_body=None,
        headers={},
        envelope={},
        group_no=1,
        failure=None,
        status="open",
        first_seen=NOW,
        last_seen=NOW,
        times_seen=1,
        life=1,
        replays=0,
        returned=0,
        earlier_id=None,
        sent_sha256=None,
        same_body_replays=0,
        claim_run=None,
        claimed_at=None,
        edited=False,
        current_sha256=b"",
        size=0,
        last_run=None,
    )


@pytest.fixture(scope="module")
def request_of_all() -> Request:
    """Of a visitor who may do everything, of a console that asks nobody."""
    state = SimpleNamespace(premises=SimpleNamespace(settings=Settings(session_key=KEY)))
    app = SimpleNamespace(state=state)
    visitor = Visitor("dana", EVERYTHING, "local")
    scope = {"type": "http", "method": "GET", "path": "/letters/list", "query_string": b"", "headers": [], "app": app}
    return Request(scope | {"visitor": visitor, "csrf": "secret"})


def _page_of(request: Request, texts: list[str]) -> _Read:
    # `premises_of` wants the real thing; the settings are all that a template asks of it.
    letters = [_letter(number + 1, text) for number, text in enumerate(texts)]
    search = {"reason": texts[0], "text": texts[-1]}
    shown = {"letters": letters, "total": len(letters), "search": search, "following": texts[0]}
    return _Read(fill(request, "letters_list.html", shown))


def test_ten_thousand_hostile_texts_are_shown_literally(
    request_of_all: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("incentive_fleet.console.pages.shell.premises_of", lambda request: request.app.state.premises)
    texts = list(hostile(20261126, COUNT))
    for start in range(0, COUNT, ROWS):
        page = texts[start : start + ROWS]
        read, plain = _page_of(request_of_all, page), _page_of(request_of_all, ["plain"] * ROWS)
        assert read.elements == plain.elements, "a text became an element, or an attribute of one"
        shown = read.cells[7::8]  # the detail, the last of a row's eight cells
        assert [cell.strip() for cell in shown] == [literal(text).strip() for text in page]


@pytest.fixture(scope="module")
def hostile_scene(postgres: Postgres, database_template: str) -> Iterator[tuple[Scene, dict[int, str]]]:
    """Letters whose details, headers, bodies, orders and customers are hostile; the details by the letters' numbers."""
    with fresh_database(postgres, database_template) as url:
        database = LetterDatabase.loaded(url)
        for number, text in enumerate(hostile(7, IN_A_BROWSER)):
            body = order(number, order_id=text[:200], customer_id=text[:200], coupons=[text])
            headers = {"fleet-reason": "conflict", "fleet-detail": text, "x-hostile": text}
            database.keep(arrival(body, name=f"m-{number}", headers=headers))
        settings = Settings(database_url=url, session_key=KEY, requests_per_s=1_000)
        with console_at(settings) as address:
            yield Scene(settings, address), {letter.id: letter.detail for letter in database.summaries()}


def _asked_by(page: Page, address: str) -> list[str]:
    """What a text brought the page to ask: the person, or another host. It fills as the page lives."""
    asked: list[str] = []

    def of_person(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    def of_host(request: Asked) -> None:
        if not request.url.startswith((address, "data:")):
            asked.append(request.url)

    page.on("dialog", of_person)
    page.on("request", of_host)
    return asked


def test_a_browser_runs_none_of_them_and_shows_all(
    browser: Browser, hostile_scene: tuple[Scene, dict[int, str]]
) -> None:
    scene, details = hostile_scene
    shown: dict[int, str] = {}
    with looking(browser) as page:
        asked = _asked_by(page, scene.address)
        page.goto(scene.address + "/letters/list?s=" + scene.handle("search", {"status": "any"}))
        while True:
            rows: list[list[str]] = page.evaluate(
                """() => [...document.querySelectorAll("tbody tr")].map((row) =>
                    [row.cells[1].textContent.trim(), row.cells[7].textContent.trim()])"""
            )
            shown |= {int(number): text for number, text in rows}
            assert page.evaluate("() => window.pwned") is None
            following = page.locator("a[rel=next]")
            if not following.count():
                break
            following.click()
            page.wait_for_load_state("load")
        for number in list(details)[::30]:
            page.goto(f"{scene.address}/letters/{number}")
            assert page.evaluate("() => window.pwned") is None
            assert page.locator("h1").count() == 1
        page.goto(scene.address + "/letters")
        assert page.evaluate("() => window.pwned") is None
        assert asked == []
    assert shown == {number: literal(text).strip() for number, text in details.items()}
