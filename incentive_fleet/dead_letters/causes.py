"""What letters have in common: the reason without the values in it, so that a thousand of one bug are one group. Pure."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any, Final

CAUSE_CHARACTERS: Final = 400  # of a text that groups
PLACE: Final = re.compile(r'^ *File "(?:[^"]*[/\\])?incentive_fleet[/\\]([^"]+)", line \d+, in (\S+)', re.MULTILINE)
QUOTED: Final = re.compile(  # to the end where the text was cut inside a value
    r"""(?<!\w)(['"`])(?:\\.|(?!\1).)*(?:\1|$)|[\u201c\u2018\u00ab][^\u201d\u2019\u00bb]*[\u201d\u2019\u00bb]""",
    re.DOTALL,
)
NUMBER: Final = re.compile(r"(?<!ISO )\b\d+\b")
# In the words of an error: what Postgres puts in brackets, and every word with a digit in it, such as an id, a time, an address.
IN_BRACKETS: Final = re.compile(r"=\s*\([^()]*\)")
ID: Final = re.compile(r"[\w.:/@+-]*\d[\w.:/@+-]*")


def cause_of(reason: str, detail: str, failure: dict[str, Any] | None) -> str:
    """The detail without its values; of an unexpected error its class, its message likewise, and the place in our code."""
    if failure is not None:
        return _cause_of_error(failure)[:CAUSE_CHARACTERS]
    return NUMBER.sub("#", QUOTED.sub("'…'", detail))[:CAUSE_CHARACTERS] or reason


def key_of(reason: str, cause: str, event_type: str | None) -> bytes:
    """What makes two letters one group."""
    parts = (reason, cause, event_type or "")
    return sha256(b"".join(sha256(part.encode("utf-8")).digest() for part in parts)).digest()


def _cause_of_error(failure: dict[str, Any]) -> str:
    error_class, message = str(failure.get("error_class", "")), str(failure.get("message", ""))
    # The lines after the first are a driver's: the row, the statement.
    first = (message.strip().splitlines() or [""])[0]
    masked = ID.sub("#", IN_BRACKETS.sub("=(…)", QUOTED.sub("'…'", first)))
    places = PLACE.findall(str(failure.get("traceback", "")))
    place = " (in {1} of {0})".format(*places[-1]) if places else ""
    room = CAUSE_CHARACTERS - len(error_class) - len(place) - len(": ")
    return error_class + (f": {masked[: max(room, 0)]}" if masked else "") + place
