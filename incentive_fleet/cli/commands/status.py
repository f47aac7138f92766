"""`incentives status`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Final

import click

from incentive_fleet.cli import streams
from incentive_fleet.cli.command_line import TEXT, database_url, format_option, login_name, settings
from incentive_fleet.cli.layout import Column
from incentive_fleet.cli.printing import Part, clear_screen, emit, say, say_table
from incentive_fleet.cli.work import working

if TYPE_CHECKING:
    from incentive_fleet.ledger.jobs import Job, JobRun
    from incentive_fleet.ledger.processes import SeenProcess
    from incentive_fleet.ledger.standing import Backlog
    from incentive_fleet.telemetry.status import LedgerStatus, SourceStatus, Status

RATE_OVER_S: Final = 2.0  # between the two looks at the queues that one status takes
CAUSES_SHOWN: Final = 10  # JSON has them all
UNKNOWN: Final = "?"


@click.command()
@click.option(
    "--watch",
    type=click.FloatRange(1.0, 3_600),
    is_flag=False,
    flag_value=5.0,
    metavar="SECONDS",
    help="Look again every SECONDS (5 if none are given), until it is interrupted.",
)
@click.option(
    "--actor", type=TEXT, envvar="INCENTIVES_ACTOR", help="Who looks, for what is new; the system's user, if not given."
)
@format_option
def status(watch: float | None, actor: str | None, output: str) -> None:
    """One screen: queues, processes, dead letters, what waits, the last verify and expire, the health of parts.

    Reads, and exits 0, also where a part does not answer: its line says so.
    """
    from incentive_fleet.telemetry.status import Watcher

    values = settings()
    database_url(values)
    with closing(Watcher(values, actor or login_name(), keeps=output == "text")) as watcher:
        with working("Looking"):
            watcher.glance()
            time.sleep(RATE_OVER_S)
            seen = watcher.look()
        _tell(seen, output)
        while watch is not None:
            streams.end_if_lost()
            time.sleep(watch)
            _tell(watcher.look(), output, clear=True)


def _tell(seen: Status, output: str, *, clear: bool = False) -> None:
    if clear and output == "text":
        clear_screen()
    emit(_document(seen), output, lambda: _show(seen))


def _document(seen: Status) -> dict[str, object]:
    ledger = seen.ledger
    backlog = ledger.backlog if ledger else None
    return {
        "at": ledger.at if ledger else None,
        "parts": seen.parts,
        "sources": seen.sources,
        "processes": [_process(one) for one in ledger.processes] if ledger and ledger.processes is not None else None,
        "since": ledger.since if ledger else None,
        "letters": ledger.letters if ledger else None,
        "waiting": None if backlog is None else {"facts": backlog.waiting, "oldest_s": backlog.waiting_oldest_s},
        "anomalies": None if backlog is None else backlog.anomalies,
        "outbox": None
        if backlog is None
        else {name: {"unpublished": marks, "oldest_s": age_s} for name, (marks, age_s) in backlog.outbox.items()},
        "jobs": ledger.runs if ledger else None,
        "standby": ledger.standby if ledger else None,
    }


def _process(one: SeenProcess) -> dict[str, object]:
    return {
        "activity": one.process.activity,
        "host": one.process.host,
        "pid": one.process.pid,
        "release": one.process.release,
        "began_at": one.began_at,
        "seen_s": one.seen_s,
        "silent": one.silent,
        **one.figures,
    }


def _show(seen: Status) -> None:
    for part in seen.parts:
        if part.state != "reached":
            say((f"{part.part} {part.state}", "red"), f": {part.detail}", folded=True)
    reached = [part.part for part in seen.parts if part.state == "reached"]
    say("reached: ", ", ".join(reached) or "nothing", folded=True)
    _show_sources(seen.sources)
    if seen.ledger is not None:
        _show_ledger(seen.ledger)


def _show_sources(sources: list[SourceStatus]) -> None:
    say("")
    columns = [Column("source"), *(Column(name, right=True) for name in SOURCE_COLUMNS)]
    say_table(columns, ((one.source, *_figures(one)) for one in sources))
    if not sources:
        say("No broker is configured.")


SOURCE_COLUMNS: Final = ("ready", "in flight", "delayed", "dead", "oldest", "in/s", "out/s", "lag")


def _figures(one: SourceStatus) -> Iterator[str]:
    for count in (one.ready, one.in_flight, one.delayed, one.dead):
        yield UNKNOWN if count is None else f"{count:,}"
    yield "-" if one.oldest_s is None else span(one.oldest_s)
    for rate in (one.in_per_s, one.out_per_s):
        yield UNKNOWN if rate is None else f"{rate:,.1f}"
    yield "-" if one.lag_s is None else span(one.lag_s)


def _show_ledger(ledger: LedgerStatus) -> None:
    if ledger.standby:
        say(("The database is a standby: it takes no writes.", "red"))
    say("")
    _show_processes(ledger.processes)
    say("")
    _show_letters(ledger)
    _show_backlog(ledger.backlog)
    _show_job("verify", ledger.runs)
    _show_job("verify-full", ledger.runs)
    _show_job("expire", ledger.runs)


def _show_processes(processes: list[SeenProcess] | None) -> None:
    if processes is None:
        say(("processes: unknown, the ledger did not tell in time", "red"))
        return
    rows = [
        (
            one.process.activity,
            f"{one.process.host} {one.process.pid}",
            _workers(one),
            f"{span(one.seen_s)} ago",
            _doing(one),
        )
        for one in processes
    ]
    say_table(("process", "host and pid", "workers", "seen", Column("state", prose=True)), rows)
    if not any(one.process.activity == "fleet" and not one.silent for one in processes):
        say(("No fleet runs: nothing is consumed.", "red"))


def _workers(one: SeenProcess) -> str:
    workers = one.figures["workers"]
    if workers["wanted"] is None:
        return ""
    restarts = f", {workers['restarts']:.0f} restarts" if workers["restarts"] else ""
    return f"{workers['alive']:.0f} of {workers['wanted']:.0f}{restarts}"


def _doing(one: SeenProcess) -> str:
    if one.silent:
        return "silent"
    paused = ", ".join(f"{activity} waits: {cause}" for activity, cause in one.figures["paused"])
    published = ", ".join(f"{rate:,.1f}/s to {to}" for to, rate in one.figures["published_per_s"].items())
    return paused or published or "works"


def _show_letters(ledger: LedgerStatus) -> None:
    letters, since = ledger.letters, ledger.since
    if letters is None:
        say(("dead letters: unknown, the ledger did not tell in time", "red"))
        return
    new = sum(one.new for one in letters)
    told = f", {new:,} new since {since:%Y-%m-%dT%H:%M:%SZ}" if since else ""
    say(f"dead letters  {sum(one.letters for one in letters):,} open{told}")
    columns = [Column("  cause"), *(Column(name, right=True) for name in ("letters", "new", "oldest"))]
    rows = [
        (f"  {one.cause}", f"{one.letters:,}", f"{one.new:,}" if since else "", span(one.oldest_s)) for one in letters
    ]
    say_table(columns, rows[:CAUSES_SHOWN])
    if len(rows) > CAUSES_SHOWN:
        say(f"  and {len(rows) - CAUSES_SHOWN} causes more")


def _show_backlog(backlog: Backlog | None) -> None:
    if backlog is None:
        say(("waiting, anomalies, outbox: unknown, the ledger did not tell in time", "red"))
        return
    oldest = f", the oldest {span(backlog.waiting_oldest_s)}" if backlog.waiting else ""
    say(f"waiting       {backlog.waiting:,} facts for their order{oldest}")
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in backlog.anomalies.items())
    say(f"anomalies     {sum(backlog.anomalies.values()):,} open{f': {reasons}' if reasons else ''}", folded=True)
    marks = (
        f"{name} {count:,}{f' ({span(age_s)})' if count else ''}" for name, (count, age_s) in backlog.outbox.items()
    )
    say(f"outbox        unpublished: {', '.join(marks) or 'nothing is due anywhere'}", folded=True)


def _show_job(job: Job, runs: dict[Job, JobRun] | None) -> None:
    name: Part = f"{job:<14}"
    if runs is None:
        say(name, ("unknown, the ledger did not tell in time", "red"))
    elif job not in runs:
        say(name, "never ran")
    else:
        say(name, *_told(runs[job]), folded=True)


def _told(run: JobRun) -> list[Part]:
    took = f"{span(run.age_s)} ago, in {span(run.seconds)}"
    if run.well:
        return [f"{took}, well"]
    what = ", ".join(run.figures.get("failed", [])) or "some wallets were refused"
    well = "none" if run.well_age_s is None else f"{span(run.well_age_s)} ago"
    return [f"{took}, ", (f"NOT WELL: {what}", "red"), f"; the last that went well: {well}"]


def span(seconds: float) -> str:
    """A length of time for people: one number and its unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
