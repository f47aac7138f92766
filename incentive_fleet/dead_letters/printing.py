"""Draws dead letters on a terminal. Every text that came from outside passes through `visible`, and none is markup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from incentive_fleet.dead_letters.acts import Act
from incentive_fleet.dead_letters.changes import Done
from incentive_fleet.dead_letters.documents import one_line, pretty_body, visible
from incentive_fleet.dead_letters.letter import Letter
from incentive_fleet.dead_letters.rehearsal import Effect
from incentive_fleet.dead_letters.store import Group

AGES = ((86_400 * 2, 86_400, "d"), (3_600 * 2, 3_600, "h"), (60 * 2, 60, "min"), (0, 1, "s"))
REFUSALS_MAX = 20  # shown of one act


def age(moment: datetime, now: datetime) -> str:
    """How long ago, in one unit."""
    seconds = max(0, int((now - moment).total_seconds()))
    _, unit, name = next(entry for entry in AGES if seconds >= entry[0])
    return f"{seconds // unit} {name}"


def _row(table: Table, *cells: object) -> None:
    table.add_row(*(Text("" if cell is None else one_line(str(cell))) for cell in cells))


def print_list(console: Console, letters: Sequence[Letter], total: int, now: datetime) -> None:
    """One line a letter."""
    table = Table("id", "status", "reason", "queue", "type", "order", "seen", "life", "detail", box=None)
    for letter in letters:
        status = letter.status + (" (edited)" if letter.edited_body is not None else "")
        cells = (letter.id, status, letter.reason, letter.source_queue, letter.event_type, letter.order_id)
        _row(table, *cells, f"{age(letter.last_seen, now)} ago", letter.life, letter.detail)
    if letters:
        console.print(table)
    console.print(f"{len(letters):,} of {total:,} dead letters" if letters else "No dead letters.")


def print_groups(console: Console, groups: Sequence[Group], now: datetime) -> None:
    """One line a cause."""
    table = Table("count", "reason", "cause", "type", "queues", "oldest", "newest", "example", box=None)
    for group in groups:
        cells = (f"{group.count:,}", group.reason, group.cause, group.event_type, ", ".join(group.source_queues))
        _row(table, *cells, f"{age(group.oldest, now)} ago", f"{age(group.newest, now)} ago", group.example)
    console.print(table if groups else "No dead letters.")


def print_letter(
    console: Console,
    letter: Letter,
    now: datetime,
    *,
    history: Sequence[Act],
    later: Sequence[int],
    effect: Effect | None,
) -> None:
    """Everything about one letter."""
    _line(console, "dead letter", f"{letter.id}, {letter.status}, life {letter.life}, replays {letter.replays}")
    if letter.claimed_by is not None:
        _line(console, "claimed by", f"{letter.claimed_by} at {letter.claimed_at}")
    _line(console, "from", f"{letter.source_queue} ({letter.transport})")
    _line(console, "reason", f"{letter.reason}: {letter.detail}")
    seen = f"{age(letter.last_seen, now)} ago, {letter.times_seen} times, first {letter.first_seen:%Y-%m-%d %H:%M:%S}Z"
    _line(console, "seen", seen)
    if letter.earlier_id is not None:
        _line(console, "earlier life", f"the edited replay of dead letter {letter.earlier_id}")
    if later:
        _line(console, "later life", f"edited replays came back as {', '.join(map(str, later))}")
    if letter.failure is not None:
        _print_failure(console, letter.failure)
    for name, value in sorted(letter.headers.items()):
        if not name.startswith("fleet-"):
            _line(console, f"header {name}", value)
    _block(console, "body", letter.body)
    if letter.edited_body is not None:
        _block(console, "edited body (what a replay sends)", letter.edited_body)
    if effect is not None:
        console.print()
        print_effects(console, [effect])
    console.print()
    print_history(console, history)


def _print_failure(console: Console, failure: dict[str, object]) -> None:
    span = (
        f"{failure.get('attempts')} from {failure.get('first_at')} to {failure.get('last_at')} on {failure.get('host')}"
    )
    _line(console, "attempts", span)
    _line(console, "error", f"{failure.get('error_class')}: {failure.get('message')}")
    console.print(Text(visible(str(failure.get("traceback", "")))))


def _line(console: Console, name: str, value: object) -> None:
    console.print(Text.assemble((f"{visible(name)}: ", "bold"), visible(str(value))))


def _block(console: Console, name: str, body: bytes) -> None:
    console.print(Text(f"\n{name}, {len(body):,} bytes:", "bold"))
    console.print(Text(pretty_body(body)), soft_wrap=True)


def print_effects(console: Console, effects: Sequence[Effect]) -> None:
    """What a replay would do."""
    for effect in effects:
        console.print(
            Text(f"replaying {effect.id} would book: " if effect.good else f"replaying {effect.id}: ", "bold"), end=""
        )
        console.print(Text(visible(effect.sentence)))
        for transfer in effect.transfers:
            accounts = f"{transfer['debit_account']} -> {transfer['credit_account']}"
            line = f"  {transfer['kind']}: {transfer['amount']} {transfer['currency']} {accounts}"
            console.print(Text(visible(line)))
        print_difference(console, effect.difference)
    if len(effects) > 1:
        verdicts = Counter(effect.verdict for effect in effects)
        transfers = sum(len(effect.transfers) for effect in effects)
        summary = ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.most_common())
        console.print(Text(visible(f"{len(effects):,} dead letters: {summary}; {transfers:,} transfers")))


def print_history(console: Console, acts: Sequence[Act]) -> None:
    """The audit trail, oldest first."""
    table = Table("time", "letter", "act", "actor", "reason", "before", "after", box=None)
    for act in acts:
        states = (_state(act.before), _state(act.after))
        _row(table, f"{act.acted_at:%Y-%m-%d %H:%M:%S}Z", act.dead_letter_id, act.act, act.actor, act.reason, *states)
    console.print(table if acts else "Nothing was done yet.")


def _state(state: dict[str, object]) -> str:
    if not state:
        return ""
    return f"{state.get('status')}, life {state.get('life')}, body {str(state.get('body_sha256'))[:8]}"


def print_done(console: Console, done: Sequence[Done], act: str, untried: int = 0) -> None:
    """What an act came to."""
    refused = [one for one in done if one.refused]
    console.print(
        f"{len(done) - len(refused):,} {act}, {len(refused):,} not" + (f", {untried:,} not tried" if untried else "")
    )
    for one in refused[:REFUSALS_MAX]:
        console.print(Text(visible(f"  {one.id}: {one.refused}")))
    if len(refused) > REFUSALS_MAX:
        console.print(f"  … and {len(refused) - REFUSALS_MAX:,} more; --format json names all")


def print_difference(console: Console, lines: Sequence[str]) -> None:
    """A unified diff in colour."""
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for line in lines:
        console.print(Text(visible(line), styles.get(line[:1], "")), soft_wrap=True)
