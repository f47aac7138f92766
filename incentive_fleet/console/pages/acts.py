"""What operators do to many letters: rehearse, edit, replay, discard, restore. Each is written down as a run, which a process of
the fleet carries through: whoever closes the page stops nothing.

A page says what it would do and to how many before it does it.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from incentive_fleet.console.pages.handles import seal
from incentive_fleet.console.pages.selections import frozen, ids_of, opened, search_of
from incentive_fleet.console.pages.shell import Fields, away, form, number_of, page, text_of
from incentive_fleet.console.premises import premises_of, visitor_of
from incentive_fleet.console.visitors import Work
from incentive_fleet.consumers.admission import admission_of
from incentive_fleet.dead_letters import bulk_edit, changes, rehearsal, store
from incentive_fleet.dead_letters.approving import booked_at_most, with_approval
from incentive_fleet.dead_letters.audit import REASON_CHARACTERS, Attribution
from incentive_fleet.dead_letters.edit_plan import EditPlan
from incentive_fleet.dead_letters.rehearsal import RehearsedEffect
from incentive_fleet.dead_letters.replay import ReplayRequest, begin_replay
from incentive_fleet.errors import Refused

ACTS: Final = ("rehearse", "edit", "replay", "discard", "restore")
SAMPLE: Final = 5  # letters shown before an act
CHANGES_MAX: Final = 5  # of one edit
EFFECTS_SHOWN: Final = 100
KINDS: Final = ("set", "append", "unset")
TOLD: Final = ("s", "kind", "path", "value", "because", "needs_approval")  # what an edit is told
RATE_MOST: Final = 100_000


def routes() -> list[Route]:
    """Of these pages."""
    return [
        Route("/letters/choose", form(Work.OPERATE, choose), methods=["POST"]),
        Route("/letters/rehearse", form(Work.REHEARSE, rehearse), methods=["POST"]),
        Route("/letters/edit/preview", form(Work.READ, preview), methods=["POST"]),
        Route("/letters/act/{act}", prepare),
        Route("/letters/act/{act}", form(Work.OPERATE, do), methods=["POST"]),
    ]


def choose(request: Request, fields: Fields) -> Response:
    """To the page of the act that was chosen, for what was ticked or found."""
    settings = premises_of(request).settings
    search = opened(settings, text_of(fields, "s", most=8_000)) if "s" in fields else search_of(fields)
    ids = [number_of(text, "letter") or 0 for text in fields.get("letter", [])]
    act = _act_of(text_of(fields, "act", most=20))
    return away(f"/letters/act/{act}?s={seal(settings, 'search', frozen(search, ids, datetime.now(UTC)))}")


def prepare(request: Request) -> Response:
    """What the act would be done to, and what it needs to be told."""
    visitor, act = visitor_of(request), _act_of(request.path_params["act"])
    visitor.require(Work.OPERATE)
    handle = request.query_params.get("s", "")
    selection = opened(premises_of(request).settings, handle)
    with premises_of(request).connections.to(Work.READ, visitor) as connection:
        ids = ids_of(connection, selection, act)
        sample = store.get_letters(connection, ids[:SAMPLE], bodies=False)
    shown = {"act": act, "selected": len(ids), "sample": sample, "selection": handle, "changes": CHANGES_MAX}
    return page(request, "act.html", shown)


def rehearse(request: Request, fields: Fields) -> Response:
    """What a replay would book, by the core itself, which rolls it back."""
    premises, visitor = premises_of(request), visitor_of(request)
    selection = opened(premises.settings, text_of(fields, "s", most=8_000))
    with premises.connections.session(Work.REHEARSE, visitor) as session:
        ids = ids_of(session.connection, selection, "replay")
        letters = rehearsal.letters_to_rehearse(session.connection, ids)
        effects = rehearsal.rehearse(session, letters, admission_of(premises.settings))
    return page(request, "rehearsal.html", {**_summed(effects), "shown": EFFECTS_SHOWN})


def _summed(effects: list[RehearsedEffect]) -> dict[str, Any]:
    """By verdict, and in money by currency and kind of transfer."""
    money: Counter[tuple[str, str]] = Counter()
    for effect in effects:
        for transfer in effect.transfers:
            money[transfer["currency"], transfer["kind"]] += transfer["amount"]
    return {
        "effects": effects[:EFFECTS_SHOWN],
        "count": len(effects),
        "verdicts": Counter((effect.verdict, effect.good) for effect in effects).most_common(),
        "money": sorted(money.items()),
        "transfers": sum(len(effect.transfers) for effect in effects),
    }


def preview(request: Request, fields: Fields) -> Response:
    """One diff, how many would pass, and what the rest would fail with. Nothing is saved."""
    premises = premises_of(request)
    handle = text_of(fields, "s", most=8_000)
    plan = _plan_of(fields)
    with premises.connections.to(Work.READ, visitor_of(request)) as connection:
        ids = ids_of(connection, opened(premises.settings, handle), "edit")
        found = bulk_edit.preview_edit(connection, ids, plan, admission_of(premises.settings))
    refusals = [
        (reason, cause, number, found.examples[reason, cause])
        for (reason, cause), number in found.refusals.most_common(bulk_edit.REFUSALS_MAX)
    ]
    given = [(name, value) for name in TOLD if name in fields for value in fields[name]]
    return page(request, "edit_preview.html", {"preview": found, "refusals": refusals, "given": given})


def do(request: Request, fields: Fields) -> Response:
    """Begin it, and lead to where it can be watched."""
    premises, visitor, act = premises_of(request), visitor_of(request), _act_of(request.path_params["act"])
    selection = opened(premises.settings, text_of(fields, "s", most=8_000))
    by = Attribution(
        visitor.name,
        datetime.now(UTC),
        text_of(fields, "because", most=REASON_CHARACTERS),
        needs_approval="needs_approval" in fields,
    )
    with premises.connections.to(Work.OPERATE, visitor) as connection:
        ids = ids_of(connection, selection, act)
        if not ids:
            raise Refused(
                "nothing-selected", "no letter is left to do that to: somebody else was faster, or it came again"
            )
        begin = _beginning(request, act, fields)
        money = partial(_booked, request, ids) if act == "replay" else lambda: 0
        number = begin(connection, ids, with_approval(by, premises.settings, len(ids), money))
    return away(f"/runs/{number}")


def _beginning(request: Request, act: str, fields: Fields) -> Any:
    match act:
        case "replay":
            force, rate = "force" in fields, _rate_of(fields)
            return lambda connection, ids, by: begin_replay(connection, ReplayRequest(ids, by, force, rate))
        case "edit":
            plan = _plan_of(fields)
            return lambda connection, ids, by: bulk_edit.begin_edit(connection, ids, plan, by)
        case "discard" | "restore":
            return lambda connection, ids, by: changes.begin_move(connection, act, ids, by)
        case _:
            raise Refused("not-found", f"{act!r} changes nothing")


def _booked(request: Request, ids: list[int]) -> int | None:
    premises = premises_of(request)
    with premises.connections.session(Work.REHEARSE, visitor_of(request)) as session:
        return booked_at_most(session, premises.settings, ids)


def _plan_of(fields: Fields) -> EditPlan:
    """Raises Refused (bad-field, bad-assignment)."""
    given: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for kind, path, value in zip(fields.get("kind", []), fields.get("path", []), fields.get("value", []), strict=False):
        if path.strip() and kind in given:
            given[kind].append(path.strip() if kind == "unset" else f"{path.strip()}={value}")
    if not any(given.values()):
        raise Refused("bad-field", "no change is named: give a path such as data.currency, and its new value")
    plan = EditPlan(given["set"], given["append"], given["unset"])
    plan.assignments()
    return plan


def _rate_of(fields: Fields) -> float | None:
    text = text_of(fields, "rate", most=20).replace(",", ".")
    try:
        rate = float(text) if text else None
    except ValueError:
        rate = 0.0
    if rate is not None and not 0.01 <= rate <= RATE_MOST:
        raise Refused("bad-field", f"rate is {text!r}: letters a second are needed, 0.01 to {RATE_MOST:,}")
    return rate


def _act_of(name: str) -> str:
    if name not in ACTS:
        raise Refused("not-found", f"there is no act {name[:50]!r}")
    return name
