"""The table of what this release works with: the page is the table, and what a row says runs it is there and does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from incentive_fleet import support
from incentive_fleet.support import SupportedRelease

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/deploy/support.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
RUN = [row for row in support.TABLE if row.target]
# What selects the tests of a target: a script that names them, or a mark that they bear.
SCRIPTS = {"postgres-releases": "deploy/install/on_postgres.sh", "rabbitmq4": "deploy/install/on_rabbitmq4.sh"}
MARKS = {"foreign-parts": "foreign", "ha": "ha"}


def name(row: SupportedRelease) -> str:
    return f"{row.part} {row.release}".strip()


def named_in(script: str) -> set[str]:
    """The paths of tests in a script, `test_{a,b}.py` of the shell as its two."""
    braced = re.findall(r"(tests/[\w/]*test_)\{([\w,]+)\}\.py", script)
    return {f"{stem}{one}.py" for stem, ones in braced for one in ones.split(",")} | set(
        re.findall(r"tests/\w+", script)
    )


def test_the_page_is_the_table() -> None:
    told = re.findall(r"^\| ([^|`-][^|]*) \| ([^|]*) \| ([^|]*) \| (.*) \|$", PAGE, re.MULTILINE)[1:]
    wanted = [
        (row.part, row.release or "any", f"`make {row.target}`" if row.target else "**not run**", row.remark)
        for row in support.TABLE
    ]
    assert [tuple(cell.strip() for cell in row) for row in told] == wanted


@pytest.mark.parametrize("row", RUN, ids=name)
def test_what_runs_a_row_is_there(row: SupportedRelease) -> None:
    assert re.search(rf"^{row.target}:.*## ", MAKEFILE, re.MULTILINE)
    assert row.tests
    for path in row.tests:
        assert (ROOT / path).exists(), path
    if script := SCRIPTS.get(row.target):
        assert script in MAKEFILE
        assert set(row.tests) <= named_in((ROOT / script).read_text(encoding="utf-8"))
    if mark := MARKS.get(row.target):
        assert f"-m {mark}" in MAKEFILE
        for path in row.tests:
            assert f"pytest.mark.{mark}" in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("row", [row for row in support.TABLE if not row.target], ids=name)
def test_a_row_that_nothing_runs_says_why(row: SupportedRelease) -> None:
    assert row.remark
    assert not row.tests


def test_the_rows_of_a_part_stand_from_old_to_new() -> None:
    for part in ("Postgres", "RabbitMQ", "Python", "PgBouncer"):
        versions = [support.version_of(row.release) for row in support.releases(part)]
        assert versions == sorted(versions)
        assert all(versions)


def test_python_is_what_the_project_asks_for() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires-python = ">={support.releases("Python")[0].release}"' in project
