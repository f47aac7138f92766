"""Letters as lines of JSON, whole, for another place: an export reads them one portion after the other, an import keeps them.

An import checks the whole file before it keeps the first line. What is known is left as it is, so importing twice is harmless.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.brokers.budget import portions
from incentive_fleet.brokers.message_headers import DETAIL, REASON
from incentive_fleet.brokers.messages import Arrival
from incentive_fleet.brokers.registry import sources
from incentive_fleet.consumers.admission import Admission, admitted
from incentive_fleet.dead_letters.audit import Attribution, NewEntry, add_entries, state_of
from incentive_fleet.dead_letters.changes import save_edit
from incentive_fleet.dead_letters.documents import body_document
from incentive_fleet.dead_letters.keeping import keep
from incentive_fleet.dead_letters.letter import storable
from incentive_fleet.dead_letters.store import get_letter
from incentive_fleet.errors import Malformed, Refused
from incentive_fleet.events.document import shown
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.text_files import UNREADABLE, open_text

FORMAT: Final = "incentives-dead-letter/1"
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
READ_BYTES_MAX: Final = 16 * 1024 * 1024  # bodies read at a time
PORTION: Final = 100  # letters read, or kept, at a time

SIZES = "SELECT id, octet_length(body) + coalesce(octet_length(edited_body), 0) FROM dead_letters WHERE id = ANY(%s) ORDER BY id"
READ = """
    SELECT id, transport, source_queue, dead_letter_queue, headers, envelope, reason, detail, status, first_seen, last_seen,
           body, edited_body
    FROM dead_letters WHERE id = ANY(%s) ORDER BY id
"""
FIND = "SELECT id FROM dead_letters WHERE transport = %s AND source_queue = %s AND body_sha256 = %s"
TEXTS: Final = ("transport", "source_queue", "dead_letter_queue", "reason", "detail")


def export_lines(connection: Connection[Any], ids: Sequence[int]) -> Iterator[str]:
    """Each letter as a line of ASCII, by id. Bounded in memory but for one letter. Raises TransientError."""
    with mapped_errors(blameless=True):
        sizes = connection.execute(SIZES, (list(ids),)).fetchall()
    for portion in portions(sizes, lambda row: int(row[1]), READ_BYTES_MAX, PORTION):
        with mapped_errors(blameless=True), connection.cursor(binary=True) as cursor:
            rows = cursor.execute(READ, ([number for number, _ in portion],)).fetchall()
            names = [column.name for column in cursor.description or ()]
        for row in rows:
            yield json.dumps(_line(dict(zip(names, row, strict=True))), separators=(",", ":")) + "\n"


def _line(letter: dict[str, Any]) -> dict[str, Any]:
    times = {name: letter[name].astimezone(UTC).isoformat() for name in ("first_seen", "last_seen")}
    edited = letter["edited_body"]
    bodies: dict[str, Any] = {"body": body_document(letter["body"], whole=True)}
    bodies["edited_body"] = None if edited is None else body_document(edited, whole=True)
    return {"format": FORMAT, **letter, **times, **bodies}


def import_file(
    connection: Connection[Any],
    path: Path,
    by: Attribution,
    admission: Admission | None,
    told: Callable[[int], None] = lambda done: None,
) -> Counter[str]:
    """Keep the letters of a file that `export_lines` made, open; how many were `imported` and how many `known`.

    `told` hears how many it is done with. Raises Refused (bad-line, unreadable-file, not-utf8), which names the line, before
    anything is kept; and TransientError, when the same call again goes on with the rest.
    """
    for _ in read_letters(path, admission):
        pass
    counts = Counter({"imported": 0, "known": 0})
    for one in read_letters(path, admission):
        counts[_keep(connection, one, by, admission)] += 1
        told(counts.total())
    return counts


def _keep(
    connection: Connection[Any], one: tuple[int, Arrival, bytes | None], by: Attribution, admission: Admission | None
) -> str:
    line, arrival, edited = one
    key = (arrival.transport, arrival.source_queue, arrival.body_sha256)
    with mapped_errors(blameless=True), connection.transaction():
        if connection.execute(FIND, key).fetchone() is not None:
            return "known"
        keep(connection, [arrival], datetime.now(UTC), admission)
        row = connection.execute(FIND, key).fetchone()
        assert row is not None
        letter = get_letter(connection, int(row[0]))
        if edited is not None:
            save_edit(connection, letter, edited, by, admission)
        add_entries(connection, by, None, [NewEntry(letter.id, "imported", {"line": line}, state_of(letter))])
    return "imported"


def read_letters(path: Path, admission: Admission | None) -> Iterator[tuple[int, Arrival, bytes | None]]:
    """Each letter of a file with its line and what it was edited to. Raises Refused as import_file."""
    for number, text in _lines(path):
        where = f"{path.name} line {number}"
        if len(text) > LINE_BYTES_MAX:
            raise Refused("bad-line", f"{where} has more than {LINE_BYTES_MAX:,} bytes")
        if text.strip():
            yield (number, *_parsed(text, where, admission))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Each line with its number, of a long one a byte more than a line may have."""
    try:
        with open_text(path) as file:
            for number in count(1):
                if not (text := file.readline(LINE_BYTES_MAX + 1)):
                    return
                yield number, text
    except UNREADABLE as error:
        raise Refused("unreadable-file", f"{path}: {error}") from None


def _parsed(text: bytes, where: str, admission: Admission | None) -> tuple[Arrival, bytes | None]:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused("bad-line", f"{where} is no JSON: {error}") from None
    if not isinstance(line, dict):
        raise Refused(
            "bad-line", f"{where} is {shown(line)}: an object is needed, as `incentives dlq export` writes it"
        )
    if line.get("format") != FORMAT:
        raise _wrong(where, line, "format", f"{FORMAT!r} is needed, as `incentives dlq export` writes it")
    for name in TEXTS:
        value = line.get(name)
        if not isinstance(value, str) or storable(value) != value:
            raise _wrong(where, line, name, "a text without NUL and lone surrogates is needed")
        if not value and name != "detail":
            raise _wrong(where, line, name, "it may not be empty")
    if line["transport"] not in sources():
        raise _wrong(where, line, "transport", f"known are {', '.join(sources())}")
    for name in ("headers", "envelope"):
        if not isinstance(line.get(name), dict):
            raise _wrong(where, line, name, "an object is needed")
    body, edited = _bytes(line, "body", where), None
    if line.get("edited_body") is not None:
        edited = _bytes(line, "edited_body", where)
        try:
            admitted(edited, line["source_queue"], admission)
        except Malformed as error:
            raise Refused("bad-line", f"{where}: edited_body is no event: {error}") from None
    return _arrival(line, body), edited


def _arrival(line: Mapping[str, Any], body: bytes) -> Arrival:
    headers = {str(name): str(value) for name, value in line["headers"].items()}
    return Arrival(
        transport=line["transport"],
        source_queue=line["source_queue"],
        dead_letter_queue=line["dead_letter_queue"],
        body=body,
        headers={REASON: line["reason"], DETAIL: line["detail"], **headers},
        envelope=line["envelope"],
        name=f"import-{sha256(body).hexdigest()[:32]}",
        certain=True,
        receive_count=1,
        moved_by_broker=None,
        receipt=None,
    )


def _bytes(line: Mapping[str, Any], name: str, where: str) -> bytes:
    document = line.get(name)
    if not isinstance(document, dict):
        raise _wrong(where, line, name, "an object with encoding and text is needed")
    if document.get("encoding") not in ["utf-8", "hex"]:
        raise _wrong(where, document, "encoding", "utf-8 or hex is needed", f"{name}.")
    text = document.get("text")
    if not isinstance(text, str):
        raise _wrong(where, document, "text", "a text is needed", f"{name}.")
    if document["encoding"] == "utf-8":
        return text.encode("utf-8", "surrogatepass")
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise Refused("bad-line", f"{where}: {name}.text is {shown(text)}: {error}") from None


def _wrong(where: str, document: Mapping[str, Any], name: str, needed: str, within: str = "") -> Refused:
    found = f"is {shown(document[name])}" if name in document else "is missing"
    return Refused("bad-line", f"{where}: {within}{name} {found}: {needed}")
