"""The ledger: campaigns, facts, money, outcomes, and the application's role."""

from incentive_fleet.ledger.migrate import run_sql_beside

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_sql_beside(__file__)
