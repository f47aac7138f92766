"""Dead letters as people read them: lists, groups, one with its body and history, what a replay would do. It prints only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from incentive_fleet.cli.layout import Column
from incentive_fleet.cli.printing import say, say_lines, say_table
from incentive_fleet.dead_letters.audit import AuditEntry
from incentive_fleet.dead_letters.bulk_edit import EditPreview
from incentive_fleet.dead_letters.documents import pretty_body
from incentive_fleet.dead_letters.letter import Letter
from incentive_fleet.dead_letters.rehearsal import RehearsedEffect
from incentive_fleet.dead_letters.runs import Done, RunRecord
from incentive_fleet.dead_letters.store import LetterGroup

AGES = ((86_400 * 2, 86_400, "d"), (3_600 * 2, 3_600, "h"), (60 * 2, 60, "min"), (0, 1, "s"))
REFUSALS_MAX = 20  # shown of one act
NAMED_MAX = 20  # queues or producers of one group; JSON names all
DETAIL = Column("detail", prose=True)


def age(moment: datetime, now: datetime) -> str:
    """How long ago, in one unit."""
    seconds = max(0, int((now - moment).total_seconds()))
    _, unit, name = next(entry for entry in AGES if seconds >= entry[0])
    return f"{seconds // unit} {name}"


def print_list(letters: Sequence[Letter], total: int, now: datetime) -> None:
    """A few lines a letter."""
    columns = (
        *("id", Column("group", right=True), "status", "reason", "queue", "type", "order", "source", "seen"),
        *(Column("life", right=True), Column("replays", right=True), Column("run", right=True), DETAIL),
    )
    say_table(columns, (_cells(letter, now) for letter in letters))
    say(f"{len(letters):,} of {total:,} dead letters" if letters else "No dead letters.")


def _cells(letter: Letter, now: datetime) -> Sequence[object]:
    status = letter.status + (" (edited)" if letter.edited else "")
    cells = (letter.id, letter.group_no, status, letter.reason, letter.source_queue, letter.event_type, letter.order_id)
    seen = f"{age(letter.last_seen, now)} ago"
    return *cells, letter.event_source, seen, letter.life, letter.replays or "", letter.last_run, letter.detail


def print_groups(groups: Sequence[LetterGroup], now: datetime) -> None:
    """A few lines a group; its number names it, so a long cause may be cut."""
    columns = (
        *(Column("group", right=True), Column("count", right=True), "reason", "type", "oldest", "newest", "example"),
        *(Column("edited", right=True), Column("replayed", right=True), Column("sources", prose=True)),
        *(Column("queues", prose=True), Column("cause", cut=True)),
    )
    rows = [
        (
            *(group.group_no, f"{group.count:,}", group.reason, group.event_type),
            *(f"{age(group.oldest, now)} ago", f"{age(group.newest, now)} ago", group.example),
            *(group.edited or "", group.replayed or "", ", ".join(group.sources[:NAMED_MAX])),
            *(", ".join(group.source_queues[:NAMED_MAX]), group.group_text),
        )
        for group in groups
    ]
    say_table(columns, rows)
    if not groups:
        say("No dead letters.")


def print_runs(runs: Sequence[RunRecord]) -> None:
    """A few lines a run."""
    columns = (
        *("run", "act", "status", "actor", "began", Column("letters", right=True), Column("done", right=True)),
        *(Column("refused", right=True), Column("pending", right=True), Column("note", prose=True)),
        Column("reason", prose=True),
    )
    rows = (
        (
            *(
                run.run_id,
                run.act,
                "running" if run.carried else run.status,
                run.actor,
                f"{run.began_at:%Y-%m-%d %H:%M:%S}Z",
            ),
            *(f"{run.letters:,}", f"{run.done:,}", f"{run.refused:,}", f"{run.pending:,}", run.note, run.reason),
        )
        for run in runs
    )
    say_table(columns, rows)
    if not runs:
        say("No runs.")


def print_preview(preview: EditPreview, refusals: Sequence[dict[str, Any]]) -> None:
    """One diff, and what an edit would come to."""
    print_difference(preview.difference)
    refused = preview.refusals.total()
    unchanged = f", {preview.unchanged:,} would stay as they are" if preview.unchanged else ""
    say(f"{preview.passed:,} would pass{unchanged}, {refused:,} would be left")
    columns = (Column("count", right=True), "reason", "example", Column("cause", cut=True))
    say_table(columns, ([f"{one['count']:,}", one["reason"], one["example"], one["cause"]] for one in refusals))


def print_letter(
    letter: Letter,
    now: datetime,
    *,
    history: Sequence[AuditEntry],
    later: Sequence[int],
    effect: RehearsedEffect | None,
) -> None:
    """Everything about one letter."""
    _line("dead letter", f"{letter.id}, {letter.status}, life {letter.life}, replays {letter.replays}")
    if letter.claimed_by is not None:
        _line("claimed by", f"{letter.claimed_by} at {letter.claimed_at}")
    _line("from", f"{letter.source_queue} ({letter.transport})")
    _line("reason", f"{letter.reason}: {letter.detail}")
    seen = f"{age(letter.last_seen, now)} ago, {letter.times_seen} times, first {letter.first_seen:%Y-%m-%d %H:%M:%S}Z"
    _line("seen", seen)
    if letter.earlier_id is not None:
        _line("earlier life", f"the edited replay of dead letter {letter.earlier_id}")
    if later:
        _line("later life", f"edited replays came back as {', '.join(map(str, later))}")
    if letter.failure is not None:
        _print_failure(letter.failure)
    for name, value in sorted(letter.headers.items()):
        if not name.startswith("fleet-"):
            _line(f"header {name}", value)
    _block("body", letter.body)
    if letter.edited_body is not None:
        _block("edited body (what a replay sends)", letter.edited_body)
    if effect is not None:
        say("")
        print_effects([effect])
    say("")
    print_history(history)


def _print_failure(failure: dict[str, object]) -> None:
    span = (
        f"{failure.get('attempts')} from {failure.get('first_at')} to {failure.get('last_at')} on {failure.get('host')}"
    )
    _line("attempts", span)
    _line("error", f"{failure.get('error_class')}: {failure.get('message')}")
    say_lines(str(failure.get("traceback", "")))


def _line(name: str, value: object) -> None:
    say((f"{name}: ", "bold"), str(value))


def _block(name: str, body: bytes) -> None:
    say("")
    say((f"{name}, {len(body):,} bytes:", "bold"))
    say_lines(pretty_body(body))


def print_effects(effects: Sequence[RehearsedEffect]) -> None:
    """What a replay would do."""
    for effect in effects:
        lead = f"replaying {effect.id} would book: " if effect.good else f"replaying {effect.id}: "
        say((lead, "bold"), effect.sentence, folded=True)
        for transfer in effect.transfers:
            accounts = f"{transfer['debit_account']} -> {transfer['credit_account']}"
            say(f"  {transfer['kind']}: {transfer['amount']} {transfer['currency']} {accounts}")
        print_difference(effect.difference)
    if len(effects) > 1:
        verdicts = Counter(effect.verdict for effect in effects)
        transfers = sum(len(effect.transfers) for effect in effects)
        summary = ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.most_common())
        say(f"{len(effects):,} dead letters: {summary}; {transfers:,} transfers")


def print_history(entries: Sequence[AuditEntry]) -> None:
    """The audit trail, oldest first."""
    columns = ("time", "letter", "run", "act", "actor", Column("reason", prose=True), "before", "after")
    rows = (
        (
            *(f"{entry.acted_at:%Y-%m-%d %H:%M:%S}Z", entry.dead_letter_id, entry.run_id, entry.act, entry.actor),
            entry.reason,
            *(_state(entry.before), _state(entry.after)),
        )
        for entry in entries
    )
    say_table(columns, rows)
    if not entries:
        say("Nothing was done.")


def _state(state: dict[str, object]) -> str:
    if "life" not in state:  # nothing yet, or a run
        return str(state.get("status", ""))
    return f"{state.get('status')}, life {state.get('life')}, body {str(state.get('body_sha256'))[:8]}"


def print_done(done: Sequence[Done], act: str, untried: int = 0, unchanged: int = 0) -> None:
    """What an act came to."""
    refused = [one for one in done if one.refused]
    counts = [f"{len(done) - len(refused) - unchanged:,} {act}", f"{len(refused):,} not"]
    counts += [f"{unchanged:,} unchanged"] if unchanged else []
    say(", ".join([*counts, f"{untried:,} not tried"] if untried else counts))
    for one in refused[:REFUSALS_MAX]:
        say(f"  {one.id}: {one.refused}", folded=True)
    if len(refused) > REFUSALS_MAX:
        say(f"  … and {len(refused) - REFUSALS_MAX:,} more; --format json names all")


def print_difference(lines: Sequence[str]) -> None:
    """A unified diff in colour."""
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for line in lines:
        say((line, styles.get(line[:1], "")))
