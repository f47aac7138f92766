"""The order as a grocery lives it: final baskets, code pools, audiences, holds, and grants by event."""

from incentive_fleet.ledger.migrate import run_sql_beside

revision = "0003"
down_revision = "0002"
goes_on_with = "0002"


def upgrade() -> None:
    run_sql_beside(__file__)
