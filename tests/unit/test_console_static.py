"""What the console serves as files: htmx as it was released, and no code or style within a page; and how its pages write values."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import pytest

from incentive_fleet.console.pages.charts import bars, chart
from incentive_fleet.console.pages.handles import seal, unseal
from incentive_fleet.console.pages.locales import ENGLISH, LOCALES, count, decimal, locale_of, moment, money, span
from incentive_fleet.errors import Refused
from incentive_fleet.settings import Settings

CONSOLE = Path(__file__).parents[2] / "incentive_fleet" / "console"
HTMX = "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"  # htmx.org 2.0.11, dist/htmx.min.js
TEMPLATES = sorted((CONSOLE / "templates").glob("*.html"))


def test_htmx_is_the_released_file_and_its_licence_lies_beside_it() -> None:
    assert sha256((CONSOLE / "static" / "htmx.min.js").read_bytes()).hexdigest() == HTMX
    assert "Zero-Clause BSD" in (CONSOLE / "static" / "htmx.LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_code_or_style_of_its_own_or_trusts_a_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|hx-on|javascript:|\|\s*safe\b|autoescape", text)
    assert re.findall(r"<script[^>]*>", text) == re.findall(r'<script src="/static/[a-z.]+" defer>', text)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_form_that_changes_something_bears_the_sessions_secret(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(re.findall(r'<form[^>]*method="post"', text)) == text.count("{{ parts.token(csrf) }}")


@pytest.mark.parametrize(
    ("header", "tag"),
    [
        ("", "en"),
        ("de-DE,de;q=0.9,en;q=0.8", "de"),
        ("de-AT", "de-at"),
        ("xx,fr;q=0.5,en;q=0.7", "en"),
        ("*;q=x", "en"),
        ("ja" * 500, "en"),
    ],
)
def test_the_locale_is_the_one_that_is_liked_best_of_those_known(header: str, tag: str) -> None:
    assert locale_of(header).tag == tag


@pytest.mark.parametrize(
    ("minor", "currency", "tag", "shown"),
    [
        (123_456_789, "EUR", "en", "1,234,567.89 EUR"),
        (123_456_789, "EUR", "de", "1.234.567,89 EUR"),
        (-5, "EUR", "en", "\N{MINUS SIGN}0.05 EUR"),
        (1_005, "BHD", "fr", "1,005 BHD"),
        (12_345, "JPY", "en", "12,345 JPY"),
        (1_234, "QQQ", "en", "1,234 minor units of QQQ"),
    ],
)
def test_an_amount_is_written_by_its_currencys_digits(minor: int, currency: str, tag: str, shown: str) -> None:
    assert money(minor, currency, LOCALES[tag]).replace("\N{NO-BREAK SPACE}", " ") == shown


def test_numbers_spans_and_moments_read_well() -> None:
    assert money(7, "EUR", ENGLISH, signed=True).startswith("+0.07")
    assert (count(1_234_567, LOCALES["de-ch"]), decimal(1_234.56, LOCALES["de"])) == ("1’234’567", "1.234,6")  # noqa: RUF001
    assert [span(s, ENGLISH).replace("\N{NO-BREAK SPACE}", " ") for s in (0.25, 42, 7_100, 7_200, 200_000)] == [
        *("0.2 s", "42 s", "118 min", "2 h", "2 d")
    ]
    assert moment("2026-01-10T13:00:00+01:00") == (
        '<time datetime="2026-01-10T12:00:00.000000Z">2026-01-10 12:00 UTC</time>'
    )


def test_a_handle_gives_back_what_was_sealed_to_those_who_have_the_key() -> None:
    settings = Settings(session_key="k" * 32)
    handle = seal(settings, "customer", "Zoë & <co>")
    assert unseal(settings, "customer", handle) == "Zoë & <co>"
    assert handle.replace("-", "").replace("_", "").isalnum(), "it needs no escape in an address"
    assert handle != seal(settings, "customer", "Zoë & <co>"), "two of one name cannot be matched"
    for other, kind in ((Settings(session_key="x" * 32), "customer"), (settings, "order")):
        with pytest.raises(Refused, match="link-expired"):
            unseal(other, kind, handle)  # type: ignore[arg-type]


def test_a_chart_lies_within_its_box() -> None:
    drawn = chart([(0, 0.0), (1, None), (2, 50.0), (3, -50.0)], steps=True)
    assert drawn is not None
    assert (drawn.line, drawn.zero, drawn.high, drawn.low) == ("4,60 398.7,60 398.7,4 596,4 596,116", 60.0, 50.0, -50.0)
    assert chart([(0, 1.0), (1, None)]) is None
    assert bars([1, 0, 2]).rects == [(4, 60.0, 40, 56.0), (201.3, 116.0, 40, 0.0), (398.7, 4.0, 40, 112.0)]
