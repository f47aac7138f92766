"""The published schemas are those of the code, are valid themselves, and say what the codec does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from incentive_fleet.events.codec import decode
from incentive_fleet.events.models import TYPES
from incentive_fleet.events.notices import NOTICE_TYPES
from incentive_fleet.events.outcomes import OUTCOME_TYPES
from incentive_fleet.events.reasons import Reason
from incentive_fleet.events.schemas import ALL_TYPES, check_schemas, documents, main, schema_of, write_schemas
from incentive_fleet.settings import Settings
from tests.bad_input import FIELDS as NEW_FIELDS
from tests.bad_input import TIME, Field, Raw
from tests.event_bodies import ALL, DELIVERY, ORDER, REFUND, REMOVED, changed, encoded
from tests.unit.test_codec_refusals import BOUNDS, FIELDS, TIMES, as_base64

FOLDER = Path(__file__).parents[2] / "docs" / "events"

# What JSON Schema cannot say; each schema's $comment lists it for readers.
BEYOND_SCHEMAS = {Reason.SUBJECT_MISMATCH, Reason.REPEATED_LINE, Reason.GROSS_TOO_LARGE}


def accepts(type: str, document: object) -> bool:
    return bool(Draft202012Validator(schema_of(type)).is_valid(document))


def test_the_files_in_docs_are_those_of_the_code() -> None:
    assert check_schemas(FOLDER) == []


def test_differences_are_named(tmp_path: Path) -> None:
    assert len(check_schemas(tmp_path)) == len(documents())
    write_schemas(tmp_path)
    assert check_schemas(tmp_path) == []
    (tmp_path / "asyncapi.json").write_text("{}")
    (tmp_path / "reasons.md").unlink()
    assert check_schemas(tmp_path) == ["asyncapi.json differs from the models", "reasons.md is missing"]


def test_the_command_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--check"]) == 1
    assert "order-placed.v1.schema.json is missing" in capsys.readouterr().out
    assert main(["--out", str(tmp_path)]) == 0
    assert main(["--out", str(tmp_path), "--check"]) == 0


@pytest.mark.parametrize("type", ALL_TYPES)
def test_each_schema_is_valid_and_complete(type: str) -> None:
    schema = schema_of(type)
    Draft202012Validator.check_schema(schema)
    assert schema["properties"]["type"] == {"const": type}
    text = json.dumps(schema)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "#/$defs/')[1:]}:
        assert reference in schema["$defs"]


@pytest.mark.parametrize("document", ALL.values(), ids=ALL)
def test_valid_events_are_valid_by_their_schema_alone(document: dict[str, Any]) -> None:
    decode(encoded(document))
    assert [type for type in TYPES if accepts(type, document)] == [document["type"]]


@pytest.mark.parametrize(("document", "path", "value", "reason"), [case[:4] for case in FIELDS])
def test_what_the_codec_refuses_the_schema_refuses(
    document: dict[str, Any], path: str, value: object, reason: Reason
) -> None:
    whole_float = isinstance(value, float) and path != "specversion"  # 5.0 is an integer to JSON Schema
    # Python's `$` matches before a last line feed; elsewhere in JSON Schema it does not.
    line_feed = isinstance(value, str) and value.endswith("\n")
    # JSON Schema takes what a text encodes for a note and does not look inside.
    encoded_well = path == "data_base64" and isinstance(value, str) and reason is not Reason.BAD_BASE64
    if reason in BEYOND_SCHEMAS or whole_float or line_feed or encoded_well:
        return
    assert not accepts(document["type"], changed(document, path, value))


@pytest.mark.parametrize("field", NEW_FIELDS, ids=lambda field: f"{field.document['type']} {field.name}")
def test_of_a_new_field_the_schema_refuses_and_takes_what_the_codec_does(field: Field) -> None:
    accepted = Draft202012Validator(schema_of(field.document["type"])).is_valid
    for value, reason, _ in field.kind.refused:
        whole_float = isinstance(value, float) and value.is_integer()
        line_feed = "\\n" in repr(value)
        moment = reason in (Reason.INVALID_TIME, Reason.OUT_OF_BOUNDS) and field.kind is TIME  # test_times_by_schema
        if isinstance(value, Raw) or reason in BEYOND_SCHEMAS or whole_float or line_feed or moment:
            continue
        assert not accepted(changed(field.document, field.path, value)), value
    for value in field.kind.taken:
        assert accepted(changed(field.document, field.path, value)), value
    assert accepted(changed(field.document, field.path, REMOVED)) != field.required


@pytest.mark.parametrize("reason", sorted(BEYOND_SCHEMAS))
def test_what_schemas_cannot_say_is_really_beyond_them(reason: Reason) -> None:
    for document, path, value in (case[:3] for case in FIELDS if case[3] == reason):
        assert accepts(document["type"], changed(document, path, value))


@pytest.mark.parametrize(("text", "reason"), [*TIMES, *BOUNDS])
def test_times_by_schema(text: str, reason: Reason) -> None:
    document = changed(DELIVERY, "data.delivered_at", text)
    near_the_bounds = reason is Reason.OUT_OF_BOUNDS and text[:4] in ("1969", "1970", "2199", "2200")
    no_such_day = text.startswith("2026-02-29")
    line_feed = text.endswith("\n")
    if not line_feed:
        assert accepts("delivery-completed.v1", document) == (near_the_bounds or no_such_day)


@pytest.mark.parametrize(
    ("document", "path", "value"),
    [
        (ORDER, "data.coupons", REMOVED),
        (ORDER, "data.credit_requested", REMOVED),
        (ORDER, "data.lines.0.category", REMOVED),
        (ORDER, "data.unknown", None),
        (ORDER, "unknown", {"a": [None]}),
        (ORDER, "datacontenttype", REMOVED),
        (ORDER, "datacontenttype", "Application/json; charset=UTF-8"),
        (ORDER, "data.lines.0.sku", "😀" * 200),
        (ORDER, "data.currency", "XCG"),
        (REFUND, "data.lines", REMOVED),
        (REFUND, "data.lines.0.reason", "undelivered"),
        (DELIVERY, "data.promised_by", REMOVED),
        (DELIVERY, "data.undelivered", []),
        (DELIVERY, "data.delivered_at", "1969-12-31t23:00:00.1234567-23:59"),
        (DELIVERY, "time", "0001-01-01T00:00:00.123456789Z"),
        (DELIVERY, "time", "2016-12-31T23:59:60Z"),
        (ORDER, "datacontenttype", 'application/cloudevents+json; charset="utf-8"'),
        (ORDER, "data.currency", "HRK"),
        (changed(ORDER, "data", REMOVED), "data_base64", as_base64(encoded(ORDER["data"]))),
    ],
)
def test_what_the_codec_accepts_the_schema_accepts(document: dict[str, Any], path: str, value: object) -> None:
    changed_document = changed(document, path, value)
    decode(encoded(changed_document))
    assert accepts(document["type"], changed_document)


def test_the_asyncapi_document_holds_together() -> None:
    document = json.loads((FOLDER / "asyncapi.json").read_text())
    assert document["asyncapi"] == "3.0.0"
    messages = document["components"]["messages"]
    assert list(messages) == [*TYPES, *OUTCOME_TYPES, *NOTICE_TYPES]
    for message in messages.values():
        assert (FOLDER / message["payload"]["schema"]["$ref"]).is_file()
    for reference in references(document):
        if reference.startswith("#"):
            resolve(document, reference)
    for operation in document["operations"].values():
        channel = resolve(document, operation["channel"]["$ref"])
        expected = TYPES if operation["action"] == "receive" else (*OUTCOME_TYPES, *NOTICE_TYPES)
        assert list(channel["messages"]) == list(expected)
        assert len(operation["messages"]) == len(expected)


def test_the_asyncapi_document_names_the_channels_of_the_default_settings() -> None:
    prefix = Settings().prefix
    channels = json.loads((FOLDER / "asyncapi.json").read_text())["channels"]
    assert {channel["address"] for channel in channels.values()} == {
        f"{prefix}-events",
        f"{prefix}.events",
        f"{prefix}-outcomes",
        f"{prefix}.outcomes",
    }


def references(value: Any) -> list[str]:
    """Every $ref inside a document."""
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for part in value.values() for found in references(part)]
    return [found for part in value for found in references(part)] if isinstance(value, list) else []


def resolve(document: Any, reference: str) -> Any:
    """What a local JSON pointer points at; KeyError when it points nowhere."""
    for step in reference.removeprefix("#/").split("/"):
        document = document[step]
    return document
