"""${message}"""

from incentive_fleet.ledger.migrate import run_sql_beside

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
# The oldest revision whose release needs nothing changed here, so that it may run beside the new one, and again after it.
# Without the line there is none: sessions that the release before opens from now on wait (docs/deploy/upgrade.md).
# goes_on_with = ${repr(down_revision)}


def upgrade() -> None:
    run_sql_beside(__file__)
