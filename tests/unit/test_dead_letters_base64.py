"""A dead letter whose data came in base64 is found by its order and edited like any other."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from incentive_fleet.dead_letters import editing
from incentive_fleet.dead_letters.letter import search_fields_of
from incentive_fleet.events.codec import decode
from tests.event_bodies import ORDER, changed, encoded, wrapped


def in_base64(document: dict[str, Any]) -> bytes:
    """The event as libraries write it that take data for bytes."""
    kept = {name: value for name, value in document.items() if name != "data"}
    return encoded(kept | {"data_base64": b64encode(encoded(document["data"])).decode()})


BROKEN = changed(ORDER, "data.currency", "UKP")


@pytest.mark.parametrize("body", [in_base64(BROKEN), wrapped(in_base64(BROKEN))], ids=["raw", "wrapped"])
def test_its_fields_are_shown_and_set(body: bytes) -> None:
    assert json.loads(editing.editable(body)) == BROKEN
    mended = editing.assign(body, [editing.parse_assignment("data.currency=GBP")])
    assert decode(mended) == decode(encoded(changed(ORDER, "data.currency", "GBP")))
    changes = [line for line in editing.difference(body, mended, "letter 1") if line[0] in "+-"][2:]
    assert [line.strip() for line in (change[1:] for change in changes)] == ['"currency": "UKP",', '"currency": "GBP",']


@pytest.mark.parametrize("body", [in_base64(ORDER), wrapped(in_base64(ORDER))], ids=["raw", "wrapped"])
def test_it_is_found_by_order_and_customer(body: bytes) -> None:
    assert search_fields_of(body) == search_fields_of(encoded(ORDER))
    assert search_fields_of(body).customer_id == "c-1"


@pytest.mark.parametrize("value", ["e30", "é", "\ud800", 7, None, [], "bnVsbA==", b64encode(b"{" * 9_999).decode()])
def test_what_cannot_be_read_stays_as_it_came(value: object) -> None:
    body = json.dumps({**{k: v for k, v in ORDER.items() if k != "data"}, "data_base64": value}).encode()
    assert search_fields_of(body).order_id == "o-1"  # by the subject
    assert "o-1" in editing.editable(body)
