"""Text files as people save them: UTF-8 with or without a byte order mark, gzipped or not. Every command opens them here.

Some editors and spreadsheets put the mark in front, and UTF-16 is what others mean by "Unicode text": the mark is passed
over, and what is not UTF-8 is refused by name instead of by the first odd byte. It never writes.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO, Final, cast

from incentive_fleet.errors import Refused

# What reading may raise besides Refused: gzip cut short is an EOFError, damaged inside a zlib.error.
UNREADABLE: Final = (OSError, EOFError, zlib.error)
HEAD_BYTES: Final = 4
TEXT_BYTES_MAX: Final = 16 * 2**20  # of a file that is read whole
CSV_LINE_MAX: Final = 2**20  # characters; a row of ours has some hundreds
LINE_BYTES_MAX: Final = 16 * 2**20 + 2  # more than any body that is decoded
# UTF-32 first: its little-endian mark begins with UTF-16's.
OTHER_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def open_text(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where its name ends in .gz, behind its mark. Raises UNREADABLE, and Refused as past_mark."""
    file = cast(IO[bytes], gzip.GzipFile(path, "rb")) if path.suffix == ".gz" else path.open("rb")
    try:
        return past_mark(file, path)
    except BaseException:
        file.close()
        raise


def past_mark(file: IO[bytes], path: Path) -> IO[bytes]:
    """The file, at its beginning, moved behind a UTF-8 mark. Raises Refused (not-utf8) for UTF-16 and UTF-32; UNREADABLE."""
    assert isinstance(file, io.BufferedReader | gzip.GzipFile)
    head = file.peek(HEAD_BYTES)[:HEAD_BYTES]
    if encoding := next((name for mark, name in OTHER_MARKS if head.startswith(mark)), _without_mark(head)):
        raise Refused("not-utf8", f"{path} is {encoding}; save it as UTF-8")
    if head.startswith(codecs.BOM_UTF8):
        file.read(len(codecs.BOM_UTF8))
    return file


def read_text(path: Path) -> str:
    """The whole text. Raises Refused (not-utf8) naming the byte, Refused (too-large), and UNREADABLE."""
    with open_text(path) as file:
        content = file.read(TEXT_BYTES_MAX + 1)
    if len(content) > TEXT_BYTES_MAX:
        raise Refused("too-large", f"{path} has more than {TEXT_BYTES_MAX:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused("not-utf8", f"{path}: not UTF-8 at byte {error.start}") from None


def csv_lines(path: Path) -> Iterator[str]:
    """The lines of a CSV file as its reader takes them. Raises Refused (bad-file) where one is too long to be a row, and as
    past_mark; UnicodeDecodeError and UNREADABLE."""
    with open_text(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
        for number in count(1):
            line = text.readline(CSV_LINE_MAX + 1)
            if len(line) > CSV_LINE_MAX:
                raise Refused("bad-file", f"{path}: line {number} has more than {CSV_LINE_MAX:,} characters")
            if not line:
                return
            yield line


def _without_mark(head: bytes) -> str | None:
    """UTF-16 and UTF-32 write ASCII, with which all our files begin, as one byte among zeros."""
    zeros = tuple(byte == 0 for byte in head)
    if zeros in ((False, True, True, True), (True, True, True, False)):
        return "UTF-32"
    return "UTF-16" if zeros in ((False, True, False, True), (True, False, True, False)) else None


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that hold anything, with their numbers, none longer than an event may be; a longer one is cut.

    Raises UNREADABLE, and Refused as past_mark.
    """
    with open_text(path) as file:
        number = 0
        while line := file.readline(LINE_BYTES_MAX):
            number += 1
            while not line.endswith(b"\n") and file.readline(LINE_BYTES_MAX):
                pass  # the rest of a line that is too long: what was kept is too long already
            if line.strip():
                yield number, line.rstrip(b"\r\n")
