"""The schemas and the page of reason codes in docs/events, written from the models.

`python -m incentive_fleet.events.schemas --out docs/events` writes them. A schema says what JSON Schema can say, its
`$comment` what it cannot: a schema may let pass what the codec refuses, never the other way round. It talks to nobody.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from incentive_fleet.events.asyncapi import asyncapi_document
from incentive_fleet.events.envelope import Envelope
from incentive_fleet.events.models import QUOTE_TYPE, TYPES, QuoteRequested
from incentive_fleet.events.notices import NOTICE_TYPES, NoticeEnvelope
from incentive_fleet.events.outcomes import OUTCOME_TYPES, OutcomeEnvelope
from incentive_fleet.events.quotes import QUOTED, IncentivesQuoted, QuotedEnvelope
from incentive_fleet.events.reasons import MEANINGS

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
BEYOND: Final = (
    "Checked by the consumer alone: subject is the order id; line_id is unique in an order; the gross is at most "
    "10^15; times are days of the calendar, those that rules use within 1970 to 2199 after conversion to UTC; a leap "
    "second in the envelope's time ends a day in UTC; integers are written as integers (5.0 is refused); data_base64 "
    "holds what data would; no object repeats a name; no lone surrogates; at most 64 levels and 16 MiB."
)


OF_QUOTE: Final = "subject is the quote id; bounds are those of a placing."
QUOTE_TYPES: Final[dict[str, type[BaseModel]]] = {QUOTE_TYPE: QuoteRequested, QUOTED: IncentivesQuoted}
ALL_TYPES: Final = (*TYPES, *OUTCOME_TYPES, *NOTICE_TYPES, *QUOTE_TYPES)


def schema_of(type: str) -> Schema:
    """The JSON Schema (2020-12) of the whole CloudEvent of one of our types. Raises KeyError for another type."""
    if type in TYPES:
        return _cloud_event(type, Envelope, TYPES[type], BEYOND)
    if type in QUOTE_TYPES:
        return _cloud_event(type, QuotedEnvelope if type == QUOTED else Envelope, QUOTE_TYPES[type], OF_QUOTE)
    if type in NOTICE_TYPES:
        return _cloud_event(type, NoticeEnvelope, NOTICE_TYPES[type], "subject is the customer id.")
    return _cloud_event(type, OutcomeEnvelope, OUTCOME_TYPES[type], "subject is the order id.")


def _cloud_event(type: str, envelope: type[BaseModel], data: type[BaseModel], comment: str) -> Schema:
    outer = _plain(envelope.model_json_schema())
    inner = _plain(data.model_json_schema(ref_template="#/$defs/{model}"))
    definitions = inner.pop("$defs", {})
    name = data.__name__
    properties = {name: part for name, part in outer["properties"].items() if name != "data"}
    properties |= {"type": {"const": type}, "data": {"$ref": f"#/$defs/{name}"}}
    if type in TYPES:
        properties["data_base64"] = _in_base64(name)
    return {
        "$schema": DIALECT,
        "$id": f"urn:incentive-fleet:{type}",
        "$comment": comment,
        "title": type,
        "description": inner["description"],
        "type": "object",
        "properties": properties,
        **_needed(set(outer["required"]), either=type in TYPES),
        "$defs": dict(sorted({**definitions, name: inner}.items())),
    }


def _in_base64(data: str) -> Schema:
    """The data as bytes, which a sender may write in its place."""
    return {
        "type": "string",
        "pattern": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
        "contentEncoding": "base64",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": f"#/$defs/{data}"},
    }


def _needed(required: set[str], *, either: bool) -> Schema:
    if not either:
        return {"required": sorted({*required, "data"})}
    return {
        "required": sorted(required - {"data"}),
        "oneOf": [{"required": ["data"]}, {"required": ["data_base64"]}],
    }


def _plain(schema: Any) -> Any:
    """pydantic's schema without what holds in Python only: null for an absent optional, titles, refused extra names."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    # `default: null` marks an optional field of the wire, which may be absent and may not be null.
    if "default" in schema and schema["default"] is None:
        inner = next(part for part in schema["anyOf"] if part != {"type": "null"})
        return _plain({**{name: value for name, value in schema.items() if name not in ("anyOf", "default")}, **inner})
    return {
        name: {field: _plain(part) for field, part in value.items()}
        if name in ("properties", "$defs")
        else _plain(value)
        for name, value in schema.items()
        if not (name == "title" and isinstance(value, str)) and not (name == "additionalProperties" and value is False)
    }


def reasons_page() -> str:
    """The table of reason codes, in Markdown."""
    rows = "".join(f"| `{reason}` | {meaning} |\n" for reason, meaning in MEANINGS.items())
    return (
        "# Why an event is refused\n\n"
        "A malformed message goes to the dead letters at once, with one of these codes and a detail that names the "
        "field and its value. The codes never change their meaning. This page is written from `events/reasons.py`.\n\n"
        f"| code | meaning |\n| --- | --- |\n{rows}"
    )


def documents() -> dict[str, str]:
    """Every generated file's name and text."""
    files = {f"{type}.schema.json": schema_of(type) for type in ALL_TYPES}
    files["asyncapi.json"] = asyncapi_document(
        {type: files[f"{type}.schema.json"] for type in (*TYPES, *OUTCOME_TYPES, *NOTICE_TYPES)}
    )
    texts = {name: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for name, value in files.items()}
    return texts | {"reasons.md": reasons_page()}


def write_schemas(folder: Path) -> list[Path]:
    """Write every file into the folder, made if need be; returns their paths. Safe to repeat. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in documents().items():
        (folder / name).write_text(text, encoding="utf-8")
        paths.append(folder / name)
    return paths


def check_schemas(folder: Path) -> list[str]:
    """A sentence for each file that is missing or differs from the code; empty when all agree. Raises OSError."""
    differences = []
    for name, text in documents().items():
        path = folder / name
        if not path.exists():
            differences.append(f"{name} is missing")
        elif path.read_text(encoding="utf-8") != text:
            differences.append(f"{name} differs from the models")
    return differences


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with --check report differences and return 1 when there are any."""
    parser = argparse.ArgumentParser(
        prog="incentive_fleet.events.schemas", description="Write the schemas of all events."
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of the generated files")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file differs from the code")
    options = parser.parse_args(arguments)
    lines = check_schemas(options.out) if options.check else [f"wrote {path}" for path in write_schemas(options.out)]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if options.check and lines else 0


if __name__ == "__main__":
    sys.exit(main())
