"""What is held against the data beside the checkout: where it lies, in which order it is played, and what must come of it.

It never plays anything itself, and nothing of the data is in here.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "shared" / "data"
GROCERIES = DATA / "conformance-2"
YEAR = "online-retail-final"

# Each phase of the worlds, and the moment as of which expiry and reminders run after it.
PHASES = ((1, "2025-01-31"), (2, "2025-03-02"), (3, "2025-07-20"))
# What is loaded and done between the phases of the worlds of groceries.
BETWEEN = {
    2: (
        ("campaigns", "load", "campaigns-2.toml"),
        ("codes", "revoke", "revoked.csv", "--reason", "leaked"),
        ("audiences", "load", "audiences-2.csv"),
        ("wallets", "hold", "h1", "--reason", "dispute"),
    ),
    3: (("wallets", "release", "h1", "--reason", "settled"),),
}
STANDING = ("gross", "discount", "credit", "payable")


def expected(path: Path) -> Any:
    with gzip.open(path) as file:
        return json.load(file)


def differing(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The first few keys that are not as they should be, each with what was found and what was wanted."""
    keys = [key for key in sorted(found.keys() | wanted.keys()) if found.get(key) != wanted.get(key)]
    return {key: (found.get(key), wanted.get(key)) for key in keys[:5]}


def given(data: dict[str, Any]) -> dict[str, Any]:
    """What an outcome of a placing, or a quote, says was given, in the shape of the expectations."""
    coupons = [
        [one["code"], None if one["refusal"] else one["campaign_id"], one["discount"], one["refusal"]]
        for one in data["coupons"]
    ]
    return {
        "coupons": sorted(coupons, key=str),
        "credit": [data["credit"][name] for name in ("requested", "applied", "shortfall")],
        "earned": [[one["campaign_id"], one["amount"]] for one in data["earned"] if not one["refusal"]],
    }


def standing(data: dict[str, Any]) -> list[list[Any]]:
    return [[one[name] for name in ("line_id", *STANDING)] for one in data["lines"]]


def _sorted_coupons(wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: sorted(value, key=str) if name == "coupons" else value for name, value in wanted.items()}


def outcomes_of(published: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The data of what was told of a fact; the rest are notices."""
    return [one["data"] for one in published if "cause" in one["data"]]


def _key(data: dict[str, Any]) -> str:
    return f"{data['order_id']}|{data['cause']['fact']}"


def wrong_outcomes_of_worlds(published: list[dict[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """Of each fact the money that is due back and every line, of a placing also what was given."""
    wanted = expected(GROCERIES / "expected-outcomes.json.gz")
    found: dict[str, dict[str, Any]] = {}
    for data in outcomes_of(published):
        found[_key(data)] = {"money_due_back": data["money_due_back"], "lines": standing(data)}
        if data["cause"]["fact"] == "placing":
            found[_key(data)]["given"] = given(data)
    for one in wanted.values():
        if "given" in one:
            one["given"] = _sorted_coupons(one["given"])
    return differing(found, wanted)


def wrong_notices_of_worlds(published: list[dict[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """How often each notice was given, which may be in any order."""
    found: Counter[str] = Counter()
    for one in published:
        data = one["data"]
        if "cause" not in data:
            last = [data["day"]] if "day" in data else [data["campaign_id"], data["expires_at"]]
            found[str([one["type"], data["customer_id"], data["currency"], data["amount"], *last])] += 1
    return differing(found, Counter(map(str, expected(GROCERIES / "expected-notices.json.gz"))))


def wrong_quotes_of_worlds(answers: list[dict[str, Any]]) -> dict[str, tuple[Any, Any]]:
    found = {
        one["subject"]: given(one["data"])
        | {"lines": standing(one["data"]), "wallet_balance": one["data"]["wallet_balance"]}
        for one in answers
    }
    wanted = expected(GROCERIES / "expected-quotes.json.gz")
    return differing(found, {name: _sorted_coupons(one) for name, one in wanted.items()})


def counted_of_worlds() -> list[dict[str, int]]:
    """What each phase repeats, contradicts, is refused as a grant or is malformed, by reason."""
    counts: list[dict[str, int]] = json.loads((GROCERIES / "expected-counts.json").read_text())
    return counts


def wrong_outcomes_of_the_year(published: list[dict[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """Of each fact, with each order's facts in the order of the file: the money that is due back, the sums of its lines."""
    return differing(_told(published), expected(DATA / f"{YEAR}-expected-outcomes.json.gz"))


def _told(published: list[dict[str, Any]]) -> dict[str, list[int]]:
    return {
        _key(data): [data["money_due_back"], *(sum(line[name] for line in data["lines"]) for name in STANDING)]
        for data in outcomes_of(published)
    }
