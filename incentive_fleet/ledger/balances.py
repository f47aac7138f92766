"""The balances of all accounts, now or as of a moment. Never writes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from psycopg import Connection

from incentive_fleet.ledger.snapshot import snapshot

READ_NOW = "SELECT account, currency, balance FROM accounts WHERE balance <> 0"

# %s is compared strictly: a month's end is the first moment of the next month.
_FOLD = """
    SELECT account, currency, sum(CASE WHEN starts_with(account, 'campaign:') OR starts_with(account, 'debt:')
                                       THEN debited ELSE -debited END) AS balance
    FROM (SELECT debit_account AS account, currency, amount AS debited FROM transfers WHERE {moment} < %(as_of)s
          UNION ALL
          SELECT credit_account, currency, -amount FROM transfers WHERE {moment} < %(as_of)s) AS side
    GROUP BY account, currency HAVING sum(debited) <> 0
"""
READ_BOOKED = _FOLD.replace("{moment}", "booked_at")
READ_HAPPENED = _FOLD.replace("{moment}", "happened_at")


def read_balances(
    connection: Connection[Any], *, as_of: datetime | None = None, by: Literal["booked", "happened"] = "booked"
) -> dict[str, int]:
    """Every account that is not zero as "account|currency", in minor units, positive on its normal side, sorted by key.

    With `as_of` (aware) only transfers strictly before that moment count: 2026-02-01T00:00:00Z is the end of January.
    `by` says which of their times: `booked` stands once the moment has passed and the transactions then open have ended;
    `happened` is when it happened in the world, and moves while late events for that month still come in. Raises
    ValueError for a naive `as_of`, DatabaseUnavailable or DatabaseContention; a retry helps with the latter two.
    """
    with snapshot(connection, whole_tables=True):
        if as_of is None:
            rows = connection.execute(READ_NOW).fetchall()
        else:
            if as_of.utcoffset() is None:
                raise ValueError(f"as_of is {as_of.isoformat()}: it needs an offset")
            query = READ_BOOKED if by == "booked" else READ_HAPPENED
            rows = connection.execute(query.encode(), {"as_of": as_of}).fetchall()
    return dict(sorted((f"{account}|{currency}", int(balance)) for account, currency, balance in rows))
