"""RFC 3339 texts to and from UTC datetimes, as strictly as rules 2.2 asks. It never reads a clock.

What is chosen where RFC 3339 leaves room: `t` and `z` may be lower case; a space instead of the `T` is refused;
`-00:00` is UTC; `:60` is refused, because no calendar of ours can keep a leap second; digits after the sixth of a
fraction are cut off, since some languages always write seven or nine; the years count in UTC, after the offset. A time
that no rule uses (`check_any_time`) is held to RFC 3339 alone: any year, and `:60` where a leap second can be.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from functools import lru_cache

from incentive_fleet.errors import Malformed
from incentive_fleet.events.reasons import Reason

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS_KEPT = 4_096  # with their texts: a fact's moment stands in each row that it writes
LATEST = datetime(2199, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)

_TIME = r"[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_DATE_TIME = rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}{_TIME}"
# A schema cannot shift a time to UTC, so it lets the days before and after the bounds pass, and no others.
_YEAR = r"(?:1969|19[7-9][0-9]|20[0-9]{2}|21[0-9]{2}|2200)"
_OFFSET = r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_DAY = r"(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
RFC3339_PATTERN = rf"^{_YEAR}-{_DAY}{_TIME}(?:\.[0-9]+)?{_OFFSET}$"  # for schemas, of times that rules use
_ANY_TIME = r"[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)"
ANY_RFC3339_PATTERN = rf"^[0-9]{{4}}-{_DAY}{_ANY_TIME}(?:\.[0-9]+)?{_OFFSET}$"  # for schemas, of all others

_UTC = re.compile(rf"{_DATE_TIME}Z")
UTC_LENGTH = len("1970-01-01T00:00:00Z")
_PLAIN = re.compile(rf"({_DATE_TIME})({_OFFSET})")
_FRACTION = re.compile(rf"({_DATE_TIME})\.([0-9]+)({_OFFSET})")
_ANY = re.compile(rf"([0-9]{{4}})-([0-9]{{2}})-([0-9]{{2}}){_ANY_TIME}(?:\.[0-9]+)?{_OFFSET}")


def parse_time(text: str) -> datetime:
    """The instant in UTC. Raises Malformed (invalid-time, out-of-bounds); a retry does not help."""
    return check_time(read_time(text))


def read_time(text: str) -> datetime:
    """As `parse_time`, in the offset of the text and without its bounds on the year: an expiry may lie beyond them."""
    if len(text) == UTC_LENGTH and (moment := _in_utc(text)) is not None:  # as nearly all are
        return moment
    match = _PLAIN.fullmatch(text)
    if match:
        return _moment(match[1] + match[2].upper())
    match = _FRACTION.fullmatch(text)
    if not match:
        raise Malformed(Reason.INVALID_TIME, "an RFC 3339 date-time with an offset is needed")
    return _moment(f"{match[1]}.{match[2][:6]:0<6}{match[3].upper()}")


@lru_cache(maxsize=MOMENTS_KEPT)
def _in_utc(text: str) -> datetime | None:
    """The instant of a text of whole seconds with a `Z`, None for any other; an event says most of its times twice."""
    return _moment(text) if _UTC.fullmatch(text) else None


def check_any_time(text: str) -> str:
    """The same text, if it is an RFC 3339 time of any year and precision. Raises Malformed (invalid-time)."""
    if len(text) == UTC_LENGTH and not text.startswith("0000") and _in_utc(text) is not None:  # as nearly all are
        return text
    match = _ANY.fullmatch(text)
    if not match:
        raise Malformed(Reason.INVALID_TIME, "an RFC 3339 date-time with an offset is needed")
    try:
        date(int(match[1]) or 400, int(match[2]), int(match[3]))  # the year 0 has the days of the year 400
    except ValueError:
        raise Malformed(Reason.INVALID_TIME, "there is no such day in the calendar") from None
    if text[17:19] == "60" and _minute_in_utc(text) != 23 * 60 + 59:
        raise Malformed(Reason.INVALID_TIME, "a leap second is the last of a day in UTC")
    return text


def _minute_in_utc(text: str) -> int:
    """Of the day, out of a text that the pattern knows."""
    ahead = 0 if text[-1] in "Zz" else int(f"{text[-6]}1") * (int(text[-5:-3]) * 60 + int(text[-2:]))
    return (int(text[11:13]) * 60 + int(text[14:16]) - ahead) % (24 * 60)


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise Malformed(Reason.INVALID_TIME, "there is no such day in the calendar") from None


def check_time(moment: datetime) -> datetime:
    """The same instant in UTC. Raises Malformed for a naive one and for one outside the years 1970 to 2199."""
    if moment.tzinfo is not UTC and moment.utcoffset() is None:
        raise Malformed(Reason.INVALID_TIME, f"{moment.isoformat()} is naive: a time needs an offset")
    # Comparing first keeps years 1 and 9999, which overflow when they are shifted to UTC, out of astimezone.
    if not EARLIEST <= moment <= LATEST:
        raise Malformed(Reason.OUT_OF_BOUNDS, f"{moment.isoformat()}: the year in UTC must be 1970 to 2199")
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


@lru_cache(maxsize=MOMENTS_KEPT)
def format_time(moment: datetime) -> str:
    """The canonical text of an aware datetime: UTC, `Z`, six digits of fraction or none. ValueError if naive."""
    if moment.tzinfo is not UTC:
        if moment.utcoffset() is None:
            raise ValueError(f"{moment!r} is naive: which instant it is cannot be known")
        moment = moment.astimezone(UTC)
    return moment.isoformat().removesuffix("+00:00") + "Z"
