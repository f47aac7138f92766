"""docs/rules.md says what the rules do: every example of it is played, and its tables are those of the code."""

from __future__ import annotations

import re

import pytest

from incentive_fleet.events.models import TYPES
from incentive_fleet.incentives import anomalies, refusals
from incentive_fleet.incentives.accounts import ACCOUNTS, WAYS
from incentive_fleet.incentives.campaign_file import CampaignFileError, parse_campaigns
from tests.domain import terms
from tests.rules_page import PAGE, Block, Section, Table, sections, table_of
from tests.worked_examples import check_section

SECTIONS = [section for section in sections() if section.number]
NUMBERS = {section.number for section in SECTIONS}
LEAVES = [one for one in SECTIONS if not any(number.startswith(f"{one.number}.") for number in NUMBERS)]
# What the code is named by; a word that is missing here has no agreed meaning.
FIELD_TERMS = {
    *(
        "account",
        "acknowledgement",
        "anomaly",
        "audit entry",
        "balance",
        "batch",
        "breakage",
        "burn",
        "cause",
        "clawback",
    ),
    *(
        "conflict",
        "dead letter",
        "debt",
        "decision",
        "deferred",
        "delivery",
        "disposition",
        "duplicate",
        "effect",
        "fall",
    ),
    *("event", "expiry", "fact", "failpoint", "failure", "fast path", "group", "identity", "lot", "message headers"),
    *("notice", "outbox", "outcome", "posting", "prefetch", "reason", "redemption", "refusal", "rejection", "release"),
    *("reissue", "retry", "reversal", "settle", "transfer", "verdict", "vesting", "visibility timeout"),
}
KINDS = {"coupon": {"code": "C"}, "earn": {}, "make_good": {}, "grant": {}}


@pytest.mark.parametrize("section", LEAVES, ids=lambda section: section.number)
def test_each_section_has_an_example_and_it_is_right(section: Section) -> None:
    assert check_section(section.parts()) > 0, f"{section.number} {section.title} has no example"


def test_sections_are_numbered_without_a_gap_and_can_be_linked_by_their_number() -> None:
    expected = "0"
    for section in SECTIONS:
        chapter, _, part = expected.partition(".")
        following = (str(int(chapter) + 1), f"{chapter}.{int(part or 0) + 1}")
        assert section.number in following, f"{section.number} comes after {expected}"
        assert section.anchored == section.number
        expected = section.number


def test_the_tables_of_accounts_and_transfers_are_those_of_the_code() -> None:
    assert table_of("3.1", "class") == [
        {
            "class": account,
            "of each": rule.owner,
            "normal side": rule.normal_side,
            "below zero": "may be" if rule.may_be_negative else "never",
            "its balance is": rule.meaning,
        }
        for account, rule in ACCOUNTS.items()
    ]
    assert table_of("3.2", "kind") == [
        {"kind": kind, "debit": way.debit, "credit": way.credit, "when": way.when} for kind, way in WAYS.items()
    ]


def test_the_tables_of_refusals_and_anomalies_are_those_of_the_code() -> None:
    assert {row["reason"]: row["because"] for row in table_of("5.1", "reason")} == refusals.MEANINGS
    assert [row["reason"] for row in table_of("5.1", "reason")] == list(refusals.RefusalCode), (
        "the first that fits refuses"
    )
    assert {row["anomaly"]: row["meaning"] for row in table_of("6.6", "anomaly")} == anomalies.MEANINGS


def test_the_tables_of_events_have_every_field() -> None:
    [section] = [section for section in SECTIONS if section.number == "2.1"]
    told = re.split(r"^`([\w.-]+)`:$", section.text, flags=re.MULTILINE)[1:]
    tables = dict(zip(told[::2], told[1::2], strict=True))
    assert tables.keys() == TYPES.keys()
    for type, model in TYPES.items():
        cells = re.findall(r"^\| (`.*?) \|", tables[type].partition("```")[0], re.MULTILINE)
        fields = set(re.findall(r"`([\w.\[\]]+)`", "".join(cells)))
        items = [one for name, one in model.model_json_schema().get("$defs", {}).items() if name.endswith("Line")]
        listed = "undelivered" if type.startswith("delivery") else "lines"
        of_items = {f"{listed}[].{name}" for item in items for name in item["properties"]}
        assert fields == model.model_fields.keys() | of_items


@pytest.mark.parametrize(
    "row", [row for row in table_of("9.2", "key") if row["key"] not in ("id", "kind")], ids=lambda row: row["key"]
)
def test_the_table_of_keys_says_which_kinds_have_them(row: dict[str, str]) -> None:
    known = KINDS if row["of"] == "all" else row["of"].split(", ")
    for kind, needed in KINDS.items():
        value = {"amount": 1} if kind != "grant" else {}
        assert (kind in known) is not any(
            "not a key of this kind" in problem
            for problem in _problems(terms(kind, "c", **needed | value | {row["key"]: {}}))
        )


def test_the_table_of_keys_has_every_key() -> None:
    keys: set[str] = set()
    for kind, needed in KINDS.items():
        value = {"amount": 1} if kind != "grant" else {}
        [(_, stored)] = parse_campaigns(terms(kind, "c", **needed | value)).campaigns
        keys |= stored.keys()
    assert keys <= {row["key"] for row in table_of("9.2", "key")}


def _problems(text: str) -> list[str]:
    try:
        parse_campaigns(text)
    except CampaignFileError as error:
        return error.problems
    return []


def test_the_glossary_has_each_word_once_in_the_order_of_the_alphabet() -> None:
    [glossary] = [section for section in sections() if section.title == "Glossary"]
    words = re.findall(r"^\| \*\*(.+?)\*\*", glossary.text, re.MULTILINE)
    assert words == sorted(set(words), key=str.lower)
    assert set(words) >= FIELD_TERMS


def test_the_architecture_says_where_each_chapter_of_rules_lives() -> None:
    page = (PAGE.parent / "architecture.md").read_text(encoding="utf-8")
    chapters = [section.number for section in SECTIONS if "." not in section.number]
    assert re.findall(r"^\| \[(\d+)\]\(rules\.md#\1\)", page, re.MULTILINE) == chapters[:-1], (
        "all but the last, a story"
    )


RESULTS = {"transfers", "balances", "besides", "comes to", "then it is"}


def rows_of(parts: list[Block | Table]) -> list[dict[str, str]]:
    """The rows of the examples among the parts."""
    examples = [part for part in parts if isinstance(part, Table) and RESULTS & set(part.columns)]
    return [row for table in examples for row in table.rows]


def test_a_wrong_number_anywhere_in_an_example_is_found() -> None:
    """Each number of each result is one more in turn, and each time its section fails."""
    missed, changed = [], 0
    for section in LEAVES:
        for number, row in enumerate(rows_of(section.parts())):
            for column in row.keys() & RESULTS:
                for found in re.finditer(r"\d+", row[column]):
                    parts = section.parts()
                    wrong = f"{row[column][: found.start()]}{int(found[0]) + 1}{row[column][found.end() :]}"
                    rows_of(parts)[number][column] = wrong
                    changed += 1
                    if not _fails(parts):
                        missed.append((section.number, row, wrong))
    assert changed > 400
    assert missed == []


def _fails(parts: list[Block | Table]) -> bool:
    try:
        check_section(parts)
    except (AssertionError, KeyError, ValueError):  # a lot or a day that is not there is wrong too
        return True
    return False


def test_examples_show_every_kind_of_transfer_every_refusal_and_every_anomaly() -> None:
    rows = [row for section in LEAVES for row in rows_of(section.parts())]
    words = set(re.findall(r"[\w-]+", " ".join(row[column] for row in rows for column in row.keys() & RESULTS)))
    assert {*WAYS, *refusals.RefusalCode, *anomalies.AnomalyReason, "waits", "duplicate", "conflict"} <= words
