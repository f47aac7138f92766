"""Dead letters as JSON documents, and bodies as text of bounded length; cli/printing.py makes both safe to print. Pure."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from incentive_fleet.dead_letters.audit import AuditEntry
from incentive_fleet.dead_letters.editing import editable
from incentive_fleet.dead_letters.letter import Letter
from incentive_fleet.dead_letters.runs import RunRecord
from incentive_fleet.dead_letters.store import LetterGroup
from incentive_fleet.events.document import BODY_BYTES_MAX

HEX_BYTES: Final = 4_096  # of a body that is no text, on a terminal; JSON has all of it
TEXT_CHARACTERS: Final = 100_000  # of a body on a terminal


def pretty_body(body: bytes) -> str:
    """A body for people: indented JSON, text as it is, or a dump of bytes when it is no text. Not escaped yet."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return _dump(body)
    text = editable(body)
    return text if len(text) <= TEXT_CHARACTERS else text[:TEXT_CHARACTERS] + f"\n… ({len(body):,} bytes in all)"


def _dump(body: bytes) -> str:
    lines = []
    for start in range(0, min(len(body), HEX_BYTES), 16):
        part = body[start : start + 16]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:08x}  {part.hex(' '):<47}  {shown}")
    if len(body) > HEX_BYTES:
        lines.append(f"… ({len(body):,} bytes in all)")
    return "\n".join(lines) or "(empty)"


def body_document(body: bytes, *, whole: bool | None = None) -> dict[str, str]:
    """`text` in the `encoding` that says how to read it, utf-8 or hex; of what is too large for an event its beginning.

    `whole` says whether the body is one, where that cannot be told by its size.
    """
    try:
        return {"encoding": "utf-8", "text": _text(body, len(body) <= BODY_BYTES_MAX if whole is None else whole)}
    except UnicodeDecodeError:
        return {"encoding": "hex", "text": body.hex()}


def _text(body: bytes, whole: bool) -> str:
    """What is too large for any event was read in part, and may end within a character."""
    return getincrementaldecoder("utf-8")().decode(body, final=whole)


def letter_summary(letter: Letter, now: datetime) -> dict[str, Any]:
    """A letter as `list` has it."""
    return {
        "id": letter.id,
        "status": letter.status,
        "reason": letter.reason,
        "detail": letter.detail,
        "group": letter.group_no,
        "cause": letter.group_text,
        "transport": letter.transport,
        "source_queue": letter.source_queue,
        "event_type": letter.event_type,
        "event_source": letter.event_source,
        "event_id": letter.event_id,
        "order_id": letter.order_id,
        "customer_id": letter.customer_id,
        "edited": letter.edited,
        "first_seen": letter.first_seen,
        "last_seen": letter.last_seen,
        "age_s": max(0, int((now - letter.last_seen).total_seconds())),
        "times_seen": letter.times_seen,
        "life": letter.life,
        "replays": letter.replays,
        "earlier_id": letter.earlier_id,
        "size": letter.size,
        "run": letter.last_run,
    }


def group_document(group: LetterGroup) -> dict[str, Any]:
    """A group as `groups` has it."""
    return {
        "group": group.group_no,
        "reason": group.reason,
        "cause": group.group_text,
        "event_type": group.event_type,
        "source_queues": group.source_queues,
        "sources": group.sources,
        "count": group.count,
        "edited": group.edited,
        "replayed": group.replayed,
        "oldest": group.oldest,
        "newest": group.newest,
        "example": group.example,
    }


def run_document(run: RunRecord) -> dict[str, Any]:
    """A run as `runs` has it."""
    shown = {name: value for name, value in run.parameters.items() if name != "rows"}  # of which there may be 100,000
    return {
        "run": run.run_id,
        "act": run.act,
        "status": run.status,
        "carried": run.carried,
        "actor": run.actor,
        "reason": run.reason,
        "began_at": run.began_at,
        "ended_at": run.ended_at,
        "letters": run.letters,
        "done": run.done,
        "refused": run.refused,
        "pending": run.pending,
        "note": run.note,
        "approved_by": run.approved_by,
        "approved_at": run.approved_at,
        "parameters": shown,
    }


def letter_document(
    letter: Letter, now: datetime, *, history: Sequence[AuditEntry], later: Sequence[int], effect: dict[str, Any] | None
) -> dict[str, Any]:
    """A letter as `show` has it; `effect` is null when it was not rehearsed."""
    return letter_summary(letter, now) | {
        "dead_letter_queue": letter.dead_letter_queue,
        "body": body_document(letter.body),
        "edited_body": None if letter.edited_body is None else body_document(letter.edited_body),
        "headers": letter.headers,
        "failure": letter.failure,
        "claimed_by": letter.claimed_by,
        "claimed_at": letter.claimed_at,
        "later_ids": list(later),
        "history": list(history),
        "effect": effect,
    }
