"""Bad input of each field that final baskets, grants by event and quotes brought: the reason of rules 2, the field, its value."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from incentive_fleet.events.models import (
    CreditGrantRequested,
    Line,
    OrderCancelled,
    OrderFinalized,
    OrderPlaced,
    QuoteRequested,
)
from tests.bad_input import BASKET, ESTIMATED, FIELDS, QUOTE, Field, refusal, rows, rows_of, written
from tests.event_bodies import CANCELLING, GRANT, REMOVED, wrapped

NEW: list[tuple[dict[str, Any], str, type[BaseModel]]] = [
    (BASKET, "data", OrderFinalized),
    (CANCELLING, "data", OrderCancelled),
    (GRANT, "data", CreditGrantRequested),
    (QUOTE, "data", QuoteRequested),
    *((document, "data.lines.0", Line) for document in (ESTIMATED, BASKET, QUOTE)),
]


def _id(field: Field) -> str:
    return f"{field.document['type']} {field.name}"


def test_the_table_has_every_new_field_and_says_which_must_be_there() -> None:
    for document, owner, model in NEW:
        required = {
            field.path.removeprefix(f"{owner}."): field.required
            for field in FIELDS
            if field.document is document and field.path.rpartition(".")[0] == owner
        }
        assert required == {name: field.is_required() for name, field in model.model_fields.items()}, model
    assert not OrderPlaced.model_fields["estimated"].is_required()


@pytest.mark.parametrize("field", FIELDS, ids=_id)
def test_what_is_wrong_is_refused_by_the_reason_that_fits_it(field: Field) -> None:
    for row in rows_of(field):
        found = refusal(row.document, row.body)
        assert found is not None, row.body[:400]
        assert (found.reason, found.detail[: len(row.detail)]) == (row.reason, row.detail), row.body[:400]
        assert found.detail.isprintable()


@pytest.mark.parametrize("field", FIELDS, ids=_id)
def test_what_lies_at_the_bounds_is_taken_and_so_is_an_event_without_what_is_optional(field: Field) -> None:
    taken = [*field.kind.taken, *([] if field.required else [REMOVED])]
    for value in taken:
        assert refusal(field.document, written(field, value)) is None, (field.path, value)


def test_every_row_is_refused_alike_inside_an_sns_notification() -> None:
    every = list(rows())
    assert len(every) > 800
    for row in every:
        found = refusal(row.document, wrapped(row.body))
        assert found is not None, row.body[:400]
        assert (found.reason, found.detail[: len(row.detail)]) == (row.reason, row.detail), row.body[:400]
