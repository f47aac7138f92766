"""The console: its service may act under each of the four roles of people, the tokens of its API, and who is logged in."""

from incentive_fleet.ledger.migrate import run_sql_beside

revision = "0004"
down_revision = "0003"
goes_on_with = "0002"


def upgrade() -> None:
    run_sql_beside(__file__)
