"""What the tests of `incentives doctor` share: how it is run, and findings by their codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from incentive_fleet.doctor.examination import PART_S, examine
from incentive_fleet.findings import Finding
from incentive_fleet.settings import Settings
from tests.command import Ran, incentives

NO_AWS: Final = {"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}
Findings = dict[str, list[Finding]]


def by_code(findings: Iterable[Finding]) -> Findings:
    found: Findings = {}
    for one in findings:
        found.setdefault(one.code, []).append(one)
    return found


def examined(processes: int = 12, within_s: float = PART_S, **settings: object) -> Findings:
    """What the examination finds under these settings, by code."""
    return by_code(examine(Settings.model_validate(settings), processes, within_s))


def worst(found: Findings, *codes: str) -> dict[str, str]:
    """The worst severity of each code, of these or of all."""
    order = ("risk", "unknown", "note", "ok")
    return {code: min((one.severity.value for one in found[code]), key=order.index) for code in codes or found}


def risks(found: Findings) -> set[str]:
    """The codes that make it exit with 1."""
    return {code for code, severity in worst(found).items() if severity == "risk"}


def doctor(env: Mapping[str, str], *words: str) -> Ran:
    """The command, on a screen of 80 columns."""
    return incentives("doctor", *words, env={"COLUMNS": "80", **NO_AWS, **env})
