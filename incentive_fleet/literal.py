"""Text from outside as text and nothing else: what a terminal would obey, hide or reorder is written as its escape. Pure.

A name may hold anything that is a character. Printed raw, some of them move the cursor, break a line, turn the direction
of writing round or show nothing, so that an operator reads another name than the one that is stored. Escaped are the
control characters (C0, DEL, C1), line and paragraph separators, blanks other than the common one, format characters
(category Cf: direction marks, zero-width ones, tags), surrogates, private and unassigned code points, and what Unicode
calls default ignorable. Everything else stays: letters of any script, accents, emoji.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

# `str.isprintable` refuses the Unicode categories Cc, Cf, Cs, Co, Cn, Zl, Zp and Zs but for the blank. These count as
# letters, marks or symbols and show nothing all the same: DerivedCoreProperties.txt, Default_Ignorable_Code_Point, and
# the Braille pattern without dots.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_BEYOND_ASCII: Final = re.compile("[^\x20-\x7e]+")
_BEYOND_JSON: Final = re.compile("[^\x00-\x7e]+")  # below, json.dumps has escaped what is inside texts
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def literal(text: str) -> str:
    """The text on one line, each unsafe character as \\n, \\r, \\t, \\uXXXX or \\UXXXXXXXX; a backslash stays as it is."""
    return text if text.isascii() and text.isprintable() else _BEYOND_ASCII.sub(_escaped_run, text)


def literal_json(
    document: object,
    *,
    default: Callable[[object], object] | None = None,
    indent: int | None = None,
    ascii_only: bool = False,
) -> str:
    """The document as JSON in which no raw unsafe character stands: inside a text it is \\uXXXX, which reads back equal.

    `ascii_only` is for an encoding that does not have every character. Raises TypeError for what has no JSON form and
    `default` does not know.
    """
    text = json.dumps(document, default=default, ensure_ascii=ascii_only, indent=indent)
    return _BEYOND_JSON.sub(_escaped_json_run, text)


def _shows(character: str) -> bool:
    return character.isprintable() and not _INVISIBLE.match(character)


def _escaped_run(match: re.Match[str]) -> str:
    run = match[0]
    if run.isprintable() and not _INVISIBLE.search(run):
        return run
    return "".join(character if _shows(character) else _escape(character) for character in run)


def _escape(character: str) -> str:
    code = ord(character)
    return _SHORT.get(character) or (f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")


def _escaped_json_run(match: re.Match[str]) -> str:
    run = match[0]
    if run.isprintable() and not _INVISIBLE.search(run):
        return run
    # json.dumps escapes all but ASCII, what lies beyond 16 bits as a pair; DEL alone it leaves.
    return "".join(one if _shows(one) else "\\u007f" if one == "\x7f" else json.dumps(one)[1:-1] for one in run)
