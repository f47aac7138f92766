"""`incentives doctor`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from incentive_fleet.cli.command_line import format_option, settings
from incentive_fleet.cli.layout import Column
from incentive_fleet.cli.printing import emit, say, say_table
from incentive_fleet.cli.work import working

if TYPE_CHECKING:
    from incentive_fleet.findings import Finding

SHOWN = 3  # settings of one sentence by name; JSON has them all


@click.command()
@click.option(
    "--processes",
    type=click.IntRange(1, 10_000),
    default=12,
    show_default=True,
    help="Worker processes of the whole fleet, for its need of connections.",
)
@format_option
def doctor(processes: int, output: str) -> None:
    """Say what database and brokers are set to and what each setting risks. Reads only; exit 1 when there is a risk."""
    from incentive_fleet.doctor.examination import examine
    from incentive_fleet.findings import RISK, Severity

    with working("Examining"):
        findings = examine(settings(), processes)
    counted = Counter(finding.severity for finding in findings)
    counts = {severity.value: counted[severity] for severity in Severity}
    emit({"findings": findings, "counts": counts}, output, lambda: _show(findings, counts))
    if counted[RISK]:
        raise SystemExit(1)


def _show(findings: Sequence[Finding], counts: dict[str, int]) -> None:
    from incentive_fleet.findings import OK

    for one, names in _together([finding for finding in findings if finding.severity is not OK]):
        say((one.severity.value, "bold"), f"  {one.code}  {_several(names)}: {one.value}", folded=True)
        say(f"    {one.risk}", folded=True)
        say(f"    Do: {one.remedy}", folded=True)
    well = _together([finding for finding in findings if finding.severity is OK])
    times = Counter(one.code for one, _ in well)
    rows = [
        (one.code, f"{one.value} ({_several(names)})" if len(names) > 1 or times[one.code] > 1 else one.value)
        for one, names in well
    ]
    say_table(("in order", Column("value", prose=True)), rows)
    say(", ".join(f"{count} {severity}" for severity, count in counts.items()))


def _together(findings: Sequence[Finding]) -> list[tuple[Finding, list[str]]]:
    """What is the same of several settings is said once: nineteen queues of one kind are a line."""
    grouped: dict[Finding, tuple[Finding, list[str]]] = {}
    for one in findings:
        grouped.setdefault(replace(one, setting=""), (one, []))[1].append(one.setting)
    return list(grouped.values())


def _several(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
