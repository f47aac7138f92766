"""What `incentives doctor` says: a finding for each setting of a part, by a stable code. Plain values, no I/O.

Ledger and brokers know nothing of each other, and neither prints: they meet here. A part's table of checks holds a code's risk and
remedy once; docs/doctor.md is compared with all of these tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, TypeVar

from incentive_fleet import support
from incentive_fleet.errors import FleetError


class Severity(Enum):
    """How much a finding matters; the order is that of the report."""

    RISK = "risk"  # events, money or the service may be lost or wrong: exit 1
    UNKNOWN = "unknown"  # it could not be looked at from here
    NOTE = "note"  # worth knowing, and fit for some
    OK = "ok"


RISK: Final = Severity.RISK
UNKNOWN: Final = Severity.UNKNOWN
NOTE: Final = Severity.NOTE
OK: Final = Severity.OK


@dataclass(frozen=True, slots=True)
class Finding:
    """One setting of one part as it was found."""

    code: str
    part: str  # postgres, a broker's name in the registry, or host
    setting: str
    value: str
    severity: Severity
    risk: str  # one sentence: what a bad value of it can do
    remedy: str  # what to do about it


@dataclass(frozen=True, slots=True)
class Question:
    """A row of a part's table: one question, whatever its answer."""

    code: str  # begins with the part and a hyphen
    setting: str
    risk: str
    remedy: str

    def found(
        self, severity: Severity, value: object, *, setting: str | None = None, risk: str | None = None
    ) -> Finding:
        """The answer; a risk or setting of its own where the table's would be too general."""
        part = self.code.partition("-")[0]
        return Finding(self.code, part, setting or self.setting, str(value), severity, risk or self.risk, self.remedy)


Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class Look(Generic[Subject]):
    """Checks that one way of asking answers."""

    checks: tuple[Question, ...]
    ask: Callable[[Subject], Iterator[Finding]]


def look_at(looks: tuple[Look[Subject], ...], subject: Subject) -> Iterator[Finding]:
    """What each look finds. One that fails leaves its unanswered checks unknown and keeps no other from being asked."""
    for look in looks:
        answered: set[str] = set()
        try:
            for finding in look.ask(subject):
                answered.add(finding.code)
                yield finding
        except FleetError as error:
            why = " ".join(str(error).split())
            yield from (check.found(UNKNOWN, why) for check in look.checks if check.code not in answered)


def reached(part: str, setting: str) -> Question:
    """The check with which every part's table begins."""
    return Question(
        f"{part}-reached",
        setting,
        "What cannot be reached does nothing, and nothing else of it could be looked at.",
        "Start it, or mend its address, its login or the way there.",
    )


def version_finding(check: Question, part: str, text: str) -> Finding:
    """A version against the table of what this release works with."""
    version = support.version_of(text)
    row = support.row_of(part, version)
    if row is not None and row.target:
        return check.found(OK, text)
    if version and support.is_older(part, version):
        return check.found(RISK, f"{text}, older than {support.releases(part)[0].release}")
    return check.found(NOTE, f"{text}, which no test here runs")


SKEW_NOTED_S: Final = 1.0  # NTP keeps milliseconds
SKEW_RISKY_S: Final = 60.0  # AWS refuses what is signed minutes off, and people misread what happened when


def clock_finding(check: Question, ahead_s: float, uncertain_s: float) -> Finding:
    """A part's clock against this host's, both read as well as the way there lets them."""
    certain_s = max(0.0, abs(ahead_s) - uncertain_s)
    severity = RISK if certain_s > SKEW_RISKY_S else NOTE if certain_s > SKEW_NOTED_S else OK
    return check.found(severity, f"{ahead_s:+.3f} s, give or take {uncertain_s:.3f} s")
