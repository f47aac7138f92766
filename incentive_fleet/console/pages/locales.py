"""Numbers, money and moments as the visitor's language writes them, for templates. Pure; the texts themselves are English.

Moments are UTC here; console.js shows them in the visitor's own zone and words, which only the browser knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup

from incentive_fleet.events.currencies import MINOR_DIGITS

HEADER_MAX: Final = 500  # characters of Accept-Language that are read
THIN: Final = "\N{NARROW NO-BREAK SPACE}"
WIDE: Final = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True)
class Locale:
    """How a language groups digits and marks the fraction."""

    tag: str
    group: str
    point: str


ENGLISH: Final = Locale("en", ",", ".")
# Source: the Common Locale Data Repository 45, symbols of the default numbering system. A region's own comes first.
LOCALES: Final = {
    one.tag: one
    for one in (
        ENGLISH,
        *(Locale(tag, ",", ".") for tag in ("en-gb", "en-us", "ja", "ko", "zh", "he", "th")),
        *(
            Locale(tag, ".", ",")
            for tag in ("da", "de", "el", "es", "id", "it", "nl", "pt", "ro", "sl", "hr", "sr", "tr")
        ),
        *(
            Locale(tag, WIDE, ",")
            for tag in ("bg", "cs", "et", "fi", "hu", "lt", "lv", "nb", "no", "pl", "pt-pt", "ru")
        ),
        *(Locale(tag, WIDE, ",") for tag in ("sk", "sv", "uk", "de-at")),
        *(Locale(tag, "\N{RIGHT SINGLE QUOTATION MARK}", ".") for tag in ("de-ch", "it-ch")),
        Locale("fr", THIN, ","),
        *(Locale(tag, ",", ".") for tag in ("es-mx", "es-us")),
    )
}
UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60))


def locale_of(header: str) -> Locale:
    """The locale that an Accept-Language header likes best of those known here; English else."""
    wished: list[tuple[float, int, str]] = []
    for place, part in enumerate(header[:HEADER_MAX].split(",")):
        tag, _, quality = part.strip().lower().partition(";q=")
        try:
            wished.append((-float(quality or "1"), place, tag))
        except ValueError:
            continue
    for _, _, tag in sorted(wished):
        for known in (tag, tag.partition("-")[0]):
            if known in LOCALES:
                return LOCALES[known]
    return ENGLISH


def count(number: int, locale: Locale) -> str:
    """1234567 as 1,234,567."""
    return f"{number:,}".replace("-", "\N{MINUS SIGN}").replace(",", locale.group)


def decimal(number: float, locale: Locale, digits: int = 1) -> str:
    """With a fixed number of digits after the point."""
    whole, _, fraction = f"{number:,.{digits}f}".partition(".")
    return whole.replace("-", "\N{MINUS SIGN}").replace(",", locale.group) + (
        locale.point + fraction if fraction else ""
    )


def money(minor: int, currency: str, locale: Locale, *, signed: bool = False) -> str:
    """Minor units as an amount with its currency's code: 1,234.50 EUR. No float ever touches it."""
    digits = MINOR_DIGITS.get(currency)
    if digits is None:  # no currency of ISO 4217: nobody knows its fraction, so the ledger's own number is shown
        return f"{count(minor, locale)}{WIDE}minor units of {currency}"
    whole, fraction = divmod(abs(minor), 10**digits)
    text = count(whole, locale) + (f"{locale.point}{fraction:0{digits}d}" if digits else "")
    sign = "\N{MINUS SIGN}" if minor < 0 else "+" if signed and minor > 0 else ""
    return f"{sign}{text}{WIDE}{currency}"


def moment(at: datetime | str) -> Markup:
    """A moment (aware, or RFC 3339) that a browser can show in the visitor's zone, and that reads well without."""
    when = (datetime.fromisoformat(at) if isinstance(at, str) else at).astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        when.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), when.strftime("%Y-%m-%d %H:%M")
    )


def span(seconds: float, locale: Locale) -> str:
    """A length of time: one number and its unit."""
    for unit, length in UNITS:
        if seconds >= 2 * length:
            return f"{count(round(seconds / length), locale)}{WIDE}{unit}"
    return (decimal(seconds, locale) if seconds < 10 else count(round(seconds), locale)) + f"{WIDE}s"
