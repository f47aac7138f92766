"""Dead letters: what could not be applied, what people did about it, and the trail of every act."""

from incentive_fleet.ledger.migrate import run_sql_beside

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_sql_beside(__file__)
