"""Plays the examples of docs/rules.md on the real rules in memory, and holds each row to what it says.

The sentences that rows may use are the patterns below; docs/rules.md explains them to its readers under "How to read the
examples". A row says all that was transferred, all that was refused, released or odd, and all balances where it gives any.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from incentive_fleet.errors import Malformed
from incentive_fleet.events.codec import decode
from incentive_fleet.events.models import EventData
from incentive_fleet.incentives.basket import share
from incentive_fleet.incentives.booking import Posting
from incentive_fleet.incentives.campaign_file import CampaignFileError, parse_campaigns
from incentive_fleet.incentives.campaigns import CampaignSet, PooledCode
from incentive_fleet.incentives.money import half_up
from incentive_fleet.ledger.batch import Verdict
from incentive_fleet.settings import Settings
from tests.domain import (
    World,
    asked,
    back,
    cancelled,
    delivered,
    estimated,
    finalized,
    line,
    placed,
    refunded,
    terms,
    toml,
)
from tests.rules_page import Block, Table

Row = dict[str, str]

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
WHEN = re.compile(r"(\d+) (\w{3})(?: (20\d\d))?(?: (\d\d):(\d\d))?")
PLACES = re.compile(r"(\w+) places ([\w-]+)(, estimated)?: (.+?)(?:; coupons (.+?))?(?:; credit (\d+))?")
PICKED = re.compile(r"([\w-]+) is picked: (.+)")
CANCELLED = re.compile(r"([\w-]+) is cancelled")
ASKED = re.compile(r"([\w-]+) asks (\d+) for (\w+) of (\w+)")
CODE = re.compile(r"code (\S+) is in the pool of (\w+)(?:, for (\w+))?(?:, until (.+?))?(, revoked)?")
JOINS = re.compile(r"(\w+) joins the audience (\w+)")
HELD = re.compile(r"the credit of (\w+) is (held|released)")
LINE = re.compile(r"(\d+) x (\d+) (\w+)(?: \[(\w+)\])?(?: \((\w+)\))?")
REFUNDS = re.compile(r"([\w-]+) refunds ([\w-]+): (.+?)(?:; in (\w{3}))?")
CLAIM = re.compile(r"(\d+) (of )?(\w+)(?: \((\w+)\))?")
DELIVERED = re.compile(r"([\w-]+) is delivered(?:; promised for (.+?))?(?:; without (.+?))?")
GRANTED = re.compile(r"(\w+) is granted (\d+)(?: until (.+?))?(?:; (\d+) days to reissue)?")
TAKEN_BACK = re.compile(r"the grant of lot (\d+) of (\w+) is taken back")
EXPIRE = re.compile(r"expire --as-of (.+)")
LOADED = re.compile(r"loaded anew: (\{.+\})")
TRANSFER = re.compile(r"(\w+) (\d+)(?: (\S+) → (\S+))?")
LOT = re.compile(r"lot (\d+) of (\w+): (\d+) (?:until (.+)|for ever)")
LAST = re.compile(r"(\w+) of (no order|[\w-]+) at (.+)")
DUE = re.compile(r"money due (\d+)")
SHARES = re.compile(r"shares of ([\w-]+): (.+)")
NAMES = {
    "field",
    "class",
    "kind",
    "reason",
    "anomaly",
    "key",
    "what arrives",
}  # first columns of tables that list names
GRACE_HOURS = Settings.model_fields["expiry_grace_hours"].default
ALWAYS_SAID = re.compile(
    r"(waits|duplicate|conflict|grant-refused .*|shortfall .*|[\w-]+ refused: .*|[\w-]+ released|anomaly .*)"
)


def check_section(parts: Iterable[Block | Table]) -> int:
    """Play what stands under one heading; returns how many rows were held to what they say."""
    held, blocks, world = 0, dict[str, str](), World()
    for part in parts:
        match part:
            case Block("json", text) if "/incentive-fleet" in text:
                published = json.loads(world.working.writes.outcomes[-1].body)
                assert published == json.loads(text), "the outcome"
                held += 1
            case Block(language, text):
                blocks[language] = text
            case Table(columns, rows) if "what happens" in columns:
                world = World(*_campaigns(blocks.pop("toml", "")))
                for row in rows:
                    play(world, row)
                    world.assert_sound()
                held += len(rows)
            case Table(("the sum", "comes to"), rows):
                for row in rows:
                    assert _sum(row["the sum"]) == row["comes to"], row
                held += len(rows)
            case Table(("in place of", "stands", "then it is"), rows):
                judge: tuple[str, Callable[[str, str], str]]
                judge = ("json", judge_event) if "json" in blocks else ("toml", judge_campaigns)
                for row in rows:
                    _replaced(blocks[judge[0]], row, judge[1])
                held += len(rows)
            case Table(columns):
                assert columns[0] in NAMES, f"no table of the examples: {columns}"
    return held


def play(world: World, row: Row) -> None:
    """Let what the row tells happen, and compare."""
    booked, odd = len(world.postings), set(world.working.writes.anomalies)
    told, freed = len(world.working.writes.outcomes), len(world.working.writes.released)
    verdict = happen(world, row["what happens"], moment(row["when"]))
    _compare_transfers(world.postings[booked:], row)
    if "balances" in row:
        assert _amounts(row["balances"], none="all zero") == world.balances, row
    said = [part for part in re.split(r"; ", row.get("besides", "")) if part]
    besides = {verdict.value.replace(":", " ")} - {"applied"} if verdict else set()
    besides = {"waits" if word == "waiting" else word for word in besides}
    besides |= {
        f"anomaly {reason}: {subject}"
        for _, reason, subject in world.working.writes.anomalies
        if (_, reason, subject) not in odd
    }
    besides |= {f"{release[0]} released" for release in world.working.writes.released[freed:]}
    for outcome in world.working.writes.outcomes[told:]:
        besides |= _of_outcome(json.loads(outcome.body)["data"])
    assert {part for part in said if ALWAYS_SAID.fullmatch(part)} == besides, row
    for part in said:
        if not ALWAYS_SAID.fullmatch(part):
            _holds(world, part, row)


def happen(world: World, sentence: str, at: datetime) -> Verdict | None:
    """Do what the sentence says; what became of the fact, or None where it is an act and no fact."""
    if match := GRANTED.fullmatch(sentence):
        until = moment(match[3]) if match[3] else None
        world.give(int(match[2]), customer=match[1], until=until, reissue=int(match[4] or 30), at=at)
    elif match := TAKEN_BACK.fullmatch(sentence):
        world.take_back(world.wallet(match[2]).lots[int(match[1])], match[2], at=at)
    elif match := LOADED.fullmatch(sentence):
        [(changed, _)] = parse_campaigns(terms(**tomllib.loads(f"campaign = {match[1]}")["campaign"])).campaigns
        before = world.campaigns.by_id
        newer = {changed.id: replace(changed, version=before[changed.id].version + 1)}
        older = world.campaigns.versions
        world.campaigns = CampaignSet.of((before | newer).values(), world.campaigns.credit)
        world.campaigns.versions.update(older)
    elif match := CODE.fullmatch(sentence):
        until = moment(match[4]) if match[4] else None
        world.working.usage.codes[match[1]] = PooledCode(match[2], match[3], until, bool(match[5]))
    elif match := JOINS.fullmatch(sentence):
        world.working.usage.members.add((match[2], match[1]))
    elif match := HELD.fullmatch(sentence):
        held = world.working.usage.held
        held.add(match[1]) if match[2] == "held" else held.discard(match[1])
    elif match := EXPIRE.fullmatch(sentence):
        world.sweep(moment(match[1]) - timedelta(hours=GRACE_HOURS))
    else:
        [verdict] = world.take(fact(sentence, at))
        return verdict
    return None


def fact(sentence: str, at: datetime) -> EventData:
    """The fact that the sentence tells."""
    if match := PLACES.fullmatch(sentence):
        coupons = match[5].split(", ") if match[5] else []
        basket, credit = _basket(match[4]), int(match[6] or 0)
        placing = placed(match[2], *basket, customer=match[1], at=at, coupons=coupons, credit=credit)
        return estimated(placing) if match[3] else placing
    if match := PICKED.fullmatch(sentence):
        return finalized(match[1], *([] if match[2] == "nothing" else _basket(match[2])), at=at)
    if match := CANCELLED.fullmatch(sentence):
        return cancelled(match[1], at=at)
    if match := ASKED.fullmatch(sentence):
        return asked(match[1], int(match[2]), customer=match[3], campaign=match[4], at=at)
    if match := REFUNDS.fullmatch(sentence):
        claims = [] if match[3] == "all" else [_claim(part) for part in match[3].split(", ")]
        return refunded(match[1], *claims, order=match[2], currency=match[4] or "EUR", at=at)
    match = DELIVERED.fullmatch(sentence)
    assert match, f"no sentence of the examples: {sentence}"
    units = [part.split(" ") for part in match[3].split(", ")] if match[3] else []
    promised = moment(match[2]) if match[2] else None
    return delivered(match[1], at=at, promised=promised, missing={name: int(number) for number, name in units})


def _basket(text: str) -> list[dict[str, Any]]:
    lines = [LINE.fullmatch(part) for part in text.split(", ")]
    assert all(lines), text
    return [line(one[3], int(one[1]), int(one[2]), one[4], one[5]) for one in lines if one]


def moment(text: str) -> datetime:
    """`3 May 12:30`, in UTC; of 2026 and at midnight unless told."""
    match = WHEN.fullmatch(text)
    assert match, f"no time of the examples: {text}"
    day, month, year, hour, minute = match.groups()
    return datetime(int(year or 2026), MONTHS.index(month) + 1, int(day), int(hour or 0), int(minute or 0), tzinfo=UTC)


def judge_event(text: str, original: str) -> str:
    """What the codec says of an event: its reason to refuse it, or whether it is the original again."""
    try:
        event, first = decode(text.encode()), decode(original.encode())
    except Malformed as refusal:
        return refusal.reason
    same = (event.source, event.id) == (first.source, first.id) or (event.order_id, event.fact) == (
        first.order_id,
        first.fact,
    )
    if not same:
        return "another event"
    return "a duplicate" if event.digest == first.digest else "a conflict"


def judge_campaigns(text: str, _original: str) -> str:
    """What reading a campaign file says: that it is fine, or the first problem."""
    try:
        parse_campaigns(text)
    except CampaignFileError as error:
        return error.problems[0]
    return "loaded"


def _replaced(text: str, row: Row, judge: Callable[[str, str], str]) -> None:
    assert text.count(row["in place of"]) == 1, row
    assert judge(text.replace(row["in place of"], row["stands"].replace(r"\n", "\n")), text) == row["then it is"], row


def _campaigns(text: str) -> list[str]:
    document = tomllib.loads(text)
    credit = document.get("credit")
    table = "\n[credit]\n" + "".join(f"{name} = {toml(value)}\n" for name, value in (credit or {}).items())
    return [*([] if credit is None else [table]), *(terms(**one) for one in document.get("campaign", []))]


def _claim(text: str) -> dict[str, Any]:
    match = CLAIM.fullmatch(text)
    assert match, f"no claim of the examples: {text}"
    measure = {"amount": int(match[1])} if match[2] else {"quantity": int(match[1])}
    claim: dict[str, Any] = back(match[3], reason=match[4] or "returned", **measure)
    return claim


def _compare_transfers(postings: list[Posting], row: Row) -> None:
    said = [] if row["transfers"] == "none" else [TRANSFER.fullmatch(part) for part in row["transfers"].split(", ")]
    assert all(said), row
    booked = [(str(p.kind), p.amount, p.debit_account, p.credit_account) for p in postings]
    assert [(one[1], int(one[2])) for one in said if one] == [(kind, amount) for kind, amount, _, _ in booked], row
    for one, (_, _, debit, credit) in zip(said, booked, strict=True):
        assert one is not None
        assert one[3] in (None, debit), row
        assert one[4] in (None, credit), row


def _of_outcome(data: dict[str, Any]) -> set[str]:
    said = {f"{one['code']} refused: {one['refusal']}" for one in data.get("coupons", ()) if one.get("refusal")}
    given = (*data.get("earned", ()), *data.get("made_good", ()))
    said |= {f"{one['campaign_id']} refused: {one['refusal']}" for one in given if one.get("refusal")}
    if data.get("credit", {}).get("refusal"):
        said.add(f"credit refused: {data['credit']['refusal']}")
    shortfall = data.get("credit", {}).get("shortfall")
    return said | ({f"shortfall {shortfall}"} if shortfall else set())


def _holds(world: World, part: str, row: Row) -> None:
    if match := LOT.fullmatch(part):
        lot = world.wallet(match[2]).lots[int(match[1])]
        expires_at = moment(match[4]) if match[4] else None
        assert (lot.remaining, lot.expires_at) == (int(match[3]), expires_at), row
        return
    if match := LAST.fullmatch(part):
        last, order_id = world.postings[-1], None if match[2] == "no order" else match[2]
        assert (last.kind, last.order_id, last.happened_at) == (match[1], order_id, moment(match[3])), row
        return
    if match := DUE.fullmatch(part):
        assert json.loads(world.working.writes.outcomes[-1].body)["data"]["money_due_back"] == int(match[1]), row
        return
    match = SHARES.fullmatch(part)
    assert match, f"nothing that a row may say: {part}"
    [name] = [name for name in world.working.orders if f" {name}:" in row["what happens"]]
    decision = world.decision(name)
    shares = {coupon.campaign_id: coupon.shares for coupon in decision.coupons}
    shares |= {earned.campaign_id: earned.shares for earned in decision.earned} | {"credit": decision.credit.shares}
    assert _amounts(match[2]) == dict(zip(decision.line_ids, shares[match[1]], strict=True)), row


def _amounts(text: str, none: str = "none") -> dict[str, int]:
    pairs = [] if text == none else [part.rsplit(" ", 1) for part in text.split(", ")]
    return {name: int(amount) for name, amount in pairs}


def _sum(text: str) -> str:
    numbers = [int(number) for number in re.findall(r"-?\d+", text)]
    if text.startswith("half_up("):
        return str(half_up(*numbers))
    assert text.startswith("share("), text
    return ", ".join(map(str, share(numbers[0], numbers[1:])))
