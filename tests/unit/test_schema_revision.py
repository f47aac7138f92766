"""What a release says about the schema's revision, without a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory

from incentive_fleet.errors import SchemaUnfit
from incentive_fleet.ledger import revision
from incentive_fleet.ledger.migrate import MIGRATIONS

DOCS = Path(__file__).parents[2] / "docs" / "recovery.md"


class Found:
    """A connection's answers: a table of revisions or none, and whether the ledger's tables are there."""

    class info:
        dbname = "shop"

    def __init__(self, revisions: list[str] | None, has_ledger: bool, declared: str | None) -> None:
        self.revisions, self.has_ledger, self.declared, self.last = revisions, has_ledger, declared, ""

    def execute(self, statement: str) -> Found:
        self.last = statement
        return self

    def fetchone(self) -> tuple[bool | str | None, ...]:
        if self.last == revision.DECLARES:
            return (self.declared is not None,)
        if self.last == revision.DECLARED:
            return (self.declared,)
        assert self.last == revision.FIND
        return self.revisions is not None, self.has_ledger

    def fetchall(self) -> list[tuple[str]]:
        assert self.last == revision.READ
        return [(found,) for found in self.revisions or []]


def test_the_newest_revision_is_what_an_upgrade_reaches() -> None:
    scripts = ScriptDirectory(str(MIGRATIONS))
    assert scripts.get_heads() == [revision.NEWEST]
    ours = [script.revision for script in scripts.walk_revisions()]
    assert revision.OLDEST in ours
    assert all(revision.OURS.fullmatch(found) for found in ours)
    assert f"{revision.OLDEST} to {revision.NEWEST}" in DOCS.read_text(encoding="utf-8")


AHEAD = f"{int(revision.NEWEST) + 1:04}"
BEHIND = f"{int(revision.OLDEST) - 1:04}"
TABLE: list[tuple[list[str] | None, bool, str, str]] = [
    # revisions found, tables found, what every command says, what `db upgrade` says
    ([revision.NEWEST], True, "", ""),
    ([revision.OLDEST], True, "", ""),
    (None, False, "has no ledger yet: run `incentives db upgrade` first", ""),
    ([], False, "has no ledger yet: run `incentives db upgrade` first", ""),
    ([BEHIND], True, f"at revision {BEHIND}, and this release needs .*: run `incentives db upgrade`", ""),
    ([AHEAD], True, f"at revision {AHEAD}, newer than this release knows", f"{AHEAD}, newer than this release knows"),
    (["ae1027a6acf"], False, "ae1027a6acf, which is another program's", "ae1027a6acf, which is another program's"),
    (["00001"], True, "00001, which is another program's", "00001, which is another program's"),
    (["0001", "0002"], True, "0001 and 0002, which is another program's", "0001 and 0002, which is another program's"),
    ([revision.NEWEST], False, "without the ledger's tables", "without the ledger's tables"),
    (None, True, "a ledger without its revision", "a ledger without its revision"),
]


@pytest.mark.parametrize(("revisions", "has_ledger", "everywhere", "upgrading"), TABLE)
def test_what_does_not_fit_is_one_sentence_that_says_what_to_do(
    revisions: list[str] | None, has_ledger: bool, everywhere: str, upgrading: str
) -> None:
    found: Any = Found(revisions, has_ledger, declared=None)
    for check, sentence in ((revision.require_fit, everywhere), (revision.require_upgradable, upgrading)):
        if not sentence:
            check(found)
            continue
        with pytest.raises(SchemaUnfit, match=sentence) as caught:
            check(found)
        assert "shop" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "fits"), [(None, False), (AHEAD, False), (revision.NEWEST, True), (revision.OLDEST, True)]
)
def test_a_newer_revision_is_worked_with_where_its_migration_says_so(declared: str | None, fits: bool) -> None:
    found: Any = Found([AHEAD], True, declared)
    if fits:
        revision.require_fit(found)
        assert revision.require_upgradable(found) == AHEAD, "`db upgrade` of the older release has nothing to do"
        return
    for check in (revision.require_fit, revision.require_upgradable):
        with pytest.raises(SchemaUnfit, match=f"{AHEAD}, newer than this release knows"):
            check(found)


def test_what_is_declared_is_a_revision_that_came_before() -> None:
    """By every migration of this release that declares one; the latest of all is what `db upgrade` writes down."""
    for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions():
        declared = getattr(script.module, "goes_on_with", script.revision)
        assert revision.OURS.fullmatch(declared)
        assert declared <= script.revision
