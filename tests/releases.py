"""A made-up release beside this one: a copy of the package with one revision more, run in processes of its own.

It stands in for whatever comes next, and changes nothing of this release.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import incentive_fleet
from incentive_fleet.ledger import revision

PACKAGE = Path(incentive_fleet.__file__).parent
NEXT = f"{int(revision.NEWEST) + 1:04}"
# What a migration does as a rule: a column more on the table that every batch writes, an index, a table and its grants.
CHANGES = """
    ALTER TABLE facts ADD COLUMN picked_by text;
    CREATE INDEX facts_picked_by ON facts (picked_by) WHERE picked_by IS NOT NULL;
    CREATE TABLE pickers (picker text PRIMARY KEY);
    GRANT SELECT, INSERT ON pickers TO incentives_app
"""
MIGRATION = '''"""A made-up one."""

from alembic import op

revision = "{next}"
down_revision = "{newest}"
{goes_on_with}

def upgrade() -> None:
    op.get_bind().connection.driver_connection.execute("""{changes}""")
'''


@dataclass(frozen=True, slots=True)
class Release:
    """The environment in which `python -m incentive_fleet...` is this release's program."""

    environment: dict[str, str]


THIS = Release({})


def next_release(folder: Path, *, oldest: str, goes_on_with: str | None = None, changes: str = CHANGES) -> Release:
    """A release whose head is NEXT and which works with `oldest` and later; its migration declares `goes_on_with`."""
    copy = folder / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    module = copy / "ledger" / "revision.py"
    text = module.read_text(encoding="utf-8")
    for name, value in (("OLDEST", oldest), ("NEWEST", NEXT)):
        text, found = re.subn(rf'^{name}: Final = "[0-9]+"', f'{name}: Final = "{value}"', text, flags=re.MULTILINE)
        assert found == 1, name
    module.write_text(text, encoding="utf-8")
    declared = f'goes_on_with = "{goes_on_with}"\n' if goes_on_with else ""
    migration = MIGRATION.format(next=NEXT, newest=revision.NEWEST, goes_on_with=declared, changes=changes)
    (copy / "ledger" / "migrations" / "versions" / f"{NEXT}_made_up.py").write_text(migration, encoding="utf-8")
    # Safe path: else the folder that a process is started in, which holds this release, would come first.
    return Release({"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"})
