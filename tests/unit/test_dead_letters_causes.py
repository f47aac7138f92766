"""What makes letters one group: the reason without its values, and of a bug its class, its message and its place."""

from __future__ import annotations

from typing import Any

import pytest

from incentive_fleet.dead_letters.causes import CAUSE_CHARACTERS, cause_of, key_of

TRACEBACK = """Traceback (most recent call last):
  File "/opt/fleet/lib/incentive_fleet/consumers/core.py", line 88, in handle
    apply_events(session, events)
  File "/opt/fleet/lib/incentive_fleet/incentives/placing.py", line {line}, in {place}
    terms[code]
  File "/opt/fleet/lib/somebody/else.py", line 5, in __getitem__
    raise KeyError(code)
"""


def bug(message: str, *, line: int = 12, place: str = "decide", error_class: str = "builtins.KeyError") -> str:
    failure: dict[str, Any] = {
        "error_class": error_class,
        "message": message,
        "traceback": TRACEBACK.format(line=line, place=place),
    }
    return cause_of("unexpected-error", "an error", failure)


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("'o-17'", "'o-18'"),
        ("order o-17 has no lot 3", "order o-99 has no lot 12"),
        ("order 6f1c0e1e-0a8b-4c5e-9b1d-0f6a3f1f9d1c is odd", "order 00000000-1111-2222-3333-444444444444 is odd"),
        ("Key (order_id)=(alice) already exists.", "Key (order_id)=(bob, 7) already exists."),
        ('no customer "Anna Maria"', 'no customer "Bo"'),
        ("object at 0x7f3a01", "object at 0x7f3b02"),
        ("late by 2026-01-01T00:00:00Z", "late by 2027-05-04T12:30:00.5Z"),
        ("row is odd\nDETAIL: (1, 2, x)", "row is odd\nDETAIL: (7, 8, y)"),
        ("no lot “a b”", "no lot “c”"),
    ],
)
def test_values_do_not_part_a_bug_from_itself(one: str, another: str) -> None:
    assert bug(one) == bug(another)


def test_a_release_that_moved_the_line_does_not_part_a_bug_from_itself() -> None:
    assert bug("'a'", line=12) == bug("'b'", line=80)


@pytest.mark.parametrize(
    "another",
    [
        bug("'a'", place="earn"),
        bug("'a' is missing"),
        bug("'a'", error_class="builtins.ValueError"),
    ],
)
def test_class_message_and_place_part_bugs(another: str) -> None:
    assert bug("'a'") != another


def test_a_bug_is_named_by_class_message_and_the_last_place_in_our_code() -> None:
    assert bug("'o-17'") == "builtins.KeyError: '…' (in decide of incentives/placing.py)"
    assert cause_of("unexpected-error", "x", {"error_class": "KeyError"}) == "KeyError"


def test_a_value_that_was_cut_is_masked_to_the_end_and_an_apostrophe_begins_none() -> None:
    whole, cut = (
        cause_of("wrong-value", f"data.note is {value}", None) for value in ("'abc'", "'a long one that was c")
    )
    assert whole == cut == "data.note is '…'"
    assert cause_of("x", "the shop's list is empty, and the order's too", None) == (
        "the shop's list is empty, and the order's too"
    )


def test_a_cause_is_bounded_and_keeps_its_place() -> None:
    cause = bug("word " * 500)
    assert len(cause) <= CAUSE_CHARACTERS
    assert cause.endswith("(in decide of incentives/placing.py)")


def test_the_key_of_a_group_knows_where_its_parts_end() -> None:
    assert key_of("a", "bc", "d") != key_of("ab", "c", "d")
    assert key_of("a", "b", None) == key_of("a", "b", "")
