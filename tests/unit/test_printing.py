"""What leaves the program is literal: nothing in a text styles, hides, reorders or breaks a line, and nothing is cut."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest

from incentive_fleet.cli.layout import Column, columns_of, fold, table_lines
from incentive_fleet.literal import literal, literal_json

UNSAFE = {
    "C0": "\x00\x07\x08\x1b[31m\x1f",
    "line breaks": "\n\r\x0b\x0c\x1c\x85\u2028\u2029",
    "C1 and DEL": "\x7f\x80\x9b\x9f",
    "direction": "\u061c\u200e\u200f\u202a\u202e\u2066\u2069",
    "invisible": "\u00ad\u034f\u115f\u180e\u200b\u200d\u2060\u3164\ufe0f\ufeff\uffa0\U000e0041\U000e0100",
    "blanks": "\u00a0\u2003\u3000\u2800",
    "surrogates": "\udfff\ud800",
    "private and unassigned": "\ue000\uffff\u0378\U0010ffff",
}
SAFE = "[/x] [bold]a[/bold] \\ a  b Jos\u00e9 Jose\u0301 \u4e2d\u6587 \u05d0 \u0627 \U0001f600"


@pytest.mark.parametrize("name", UNSAFE)
def test_what_a_terminal_would_obey_or_hide_is_an_escape(name: str) -> None:
    shown = literal(f"a{UNSAFE[name]}b")
    assert all(character.isascii() and character.isprintable() for character in shown)
    named = [character for character in UNSAFE[name] if not (character.isascii() and character.isprintable())]
    assert shown.count("\\") == len(named)


@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize("ascii_only", [False, True])
def test_json_holds_no_raw_unsafe_character_and_reads_back_equal(name: str, ascii_only: bool) -> None:
    document = {f"k{UNSAFE[name]}": [UNSAFE[name], SAFE]}
    text = literal_json(document, ascii_only=ascii_only)
    assert json.loads(text) == document
    assert literal(text) == text
    assert not ascii_only or text.isascii()


def test_letters_of_any_script_stay_as_they_are() -> None:
    assert literal(SAFE) == SAFE
    assert json.loads(literal_json(SAFE)) == SAFE
    assert literal_json("Jos\u00e9") == '"Jos\u00e9"'


def test_no_character_of_a_hidden_category_is_ever_raw() -> None:
    hidden = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}
    ]
    for start in range(0, len(hidden), 10_000):
        text = "".join(hidden[start : start + 10_000])
        assert literal(text).isascii()
        assert literal_json(text).isascii()
        assert "\x7f" not in literal_json(text)


COLUMNS = (
    Column("id", right=True),
    Column("order"),
    Column("queue"),
    Column("amount", right=True),
    Column("detail", prose=True),
)


def test_columns_that_fit_stand_beside_each_other() -> None:
    lines = table_lines(COLUMNS, [["7", "o-1", "", "1,000", "short"], ["12", "o-22", "", "9", "a b"]], 80)
    assert lines == ["id  order  amount  detail", " 7  o-1     1,000  short", "12  o-22        9  a b"]


def test_one_long_name_leaves_the_rows_of_the_others_as_they_are() -> None:
    rows = [[str(n), f"o-{n}", "q", "1", ""] for n in range(20)]
    long = "x" * 200
    lines = table_lines(COLUMNS, [*rows, ["20", long, "q", "1", ""]], 80)
    assert lines[: len(rows) + 1] == table_lines(COLUMNS, rows, 80)
    assert any(line.endswith(long) for line in lines[len(rows) + 1 :])


@pytest.mark.parametrize("width", [40, 80, 132])
@pytest.mark.parametrize("count", [1, 30, 1_000])
def test_every_list_fits_and_nothing_that_a_filter_takes_is_cut(width: int, count: int) -> None:
    ids = [f"0198f1f4-7c3a-7{n:03}-9e1d-0123456789ab" for n in range(count)]
    queue, detail = "incentives.order-refunded.v1", "data.lines[0].quantity is 0: must be 1 to 1000000, and so on " * 3
    lines = table_lines(COLUMNS, [[str(n), one, queue, "1,000", detail] for n, one in enumerate(ids)], width)
    assert max(map(columns_of, lines)) <= width
    words = " ".join(lines).split()
    assert all(one in words for one in ids)
    assert words.count(queue) == count


def test_a_name_wider_than_the_screen_stands_whole_on_its_own_line() -> None:
    name = "n" * 200
    lines = table_lines(COLUMNS, [["1", name, "q" * 70, "1", "d"]], 80)
    assert name in [line.strip() for line in lines]
    assert all(len(line) <= 80 for line in lines if name not in line)


def test_beyond_a_thousand_rows_each_is_one_plain_line() -> None:
    rows = [[str(n), "o" * 60, "q" * 40, "1", ""] for n in range(1_001)]
    lines = table_lines(COLUMNS, rows, 80)
    assert len(lines) == len(rows) + 1
    assert lines[1].split() == ["0", "o" * 60, "q" * 40, "1", "-"]


def test_wide_characters_and_accents_take_the_columns_that_terminals_give_them() -> None:
    assert [columns_of(text) for text in ("abc", "Jose\u0301", "\u4e2d\u6587")] == [3, 4, 4]
    assert table_lines(COLUMNS[:2], [["1", "\u4e2d"], ["2", "a"]], 80)[1:] == [" 1  \u4e2d", " 2  a"]


def test_folding_breaks_at_blanks_alone() -> None:
    assert fold("aaaa bbbb cccc", 10, "  ") == ["aaaa bbbb", "  cccc"]
    assert fold("a" * 30, 10, "  ") == ["a" * 30]
