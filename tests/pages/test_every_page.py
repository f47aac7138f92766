"""Every page: fits a phone and a desk, is legible in light and dark, and stands in nobody's way. Pictures are in build/pages."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.pages.scene import PAGES, WIDTHS, Scene, Scheme, for_the_docs, looking, overflow_of, picture, stumbles_of

REFUSED = {"customer-unknown": 404, "refused": 422}
IN_THE_DOCS = {  # how tall, in pixels, and from where
    "customer": (420, "body"),
    "order": (320, "body"),
    "order-final": (440, "main section + section"),
    "campaign": (480, "body"),
    "anomalies": (420, "body"),
}
JUDGED = {("phone", "dark"), ("desk", "light")}  # by axe: each scheme and each layout once


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_every_window_and_everybody_can_use_it(browser: Browser, scene: Scene, name: str) -> None:
    schemes: tuple[Scheme, ...] = ("light", "dark")
    with looking(browser) as page:
        answer = page.goto(scene.address + scene.path(name))
        assert answer is not None
        assert answer.status == REFUSED.get(name, 200)
        if name in IN_THE_DOCS:
            for_the_docs(page, name, *IN_THE_DOCS[name])
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            for window, width in WIDTHS.items():
                page.set_viewport_size({"width": width, "height": 900})
                picture(page, f"{name}-{window}-{scheme}")
                assert overflow_of(page) == []
                if (window, scheme) in JUDGED:
                    assert stumbles_of(page) == []


def test_what_would_stand_in_the_way_is_found(browser: Browser, scene: Scene) -> None:
    with looking(browser, WIDTHS["phone"]) as page:
        page.goto(scene.address + "/customers")
        page.evaluate(
            """() => { const bad = document.createElement("input"); bad.style.width = "900px";
                       document.querySelector("main").append(bad); }"""
        )
        assert any("900px" in one for one in overflow_of(page))
        assert any(one.startswith("label: ") for one in stumbles_of(page))
