"""`incentives topology apply` and `check`."""

from __future__ import annotations

import click

from incentive_fleet.cli.command_line import Group, format_option, settings
from incentive_fleet.cli.printing import emit, say_each
from incentive_fleet.cli.work import working


@click.group(cls=Group)
def topology() -> None:
    """Topics, queues and exchanges."""


@topology.command()
@format_option
def apply(output: str) -> None:
    """Create what is missing on the configured brokers, set what may be set. Safe to repeat; deletes nothing."""
    from incentive_fleet.brokers import declare

    with working("Declaring"):
        changes = declare.apply(settings())
    lines = [f"{c.broker} {c.name}: {c.action}{f': {c.detail}' if c.detail else ''}" for c in changes]
    emit({"changes": changes}, output, lambda: say_each(lines or ["All was in place."]))
    if any(change.action == "refused" for change in changes):
        raise SystemExit(1)


@topology.command()
@format_option
def check(output: str) -> None:
    """Report drift between the brokers and the topology, and what could not be seen. Exit 1 when there is drift."""
    from incentive_fleet.brokers import declare

    with working("Comparing"):
        report = declare.check(settings())
    lines = [f"{d.broker} {d.name}: {d.attribute} is {d.actual}, should be {d.wanted}" for d in report.drift]
    lines = [*(lines or ["No drift."]), *report.unseen]
    emit(report, output, lambda: say_each(lines))
    if report.drift:
        raise SystemExit(1)
