"""How the ledger stands, in figures for whoever watches it: what waits, what is odd, what is owed, what campaigns spent.

It never writes. Each read is one statement that `WATCHED` bounds in time: on a ledger whose wallets take longer to sum,
`read_money` fails, and is told as unknown rather than waited for.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.ledger.connection import mapped_errors

READ_MAX_MS: Final = 5_000
WATCHED: Final = MappingProxyType({"statement_timeout": str(READ_MAX_MS)})  # for `connect`

WAITING: Final = "SELECT count(*), coalesce(extract(epoch FROM now() - min(since)), 0)::float8 FROM waiting"
ANOMALIES: Final = "SELECT reason, count(*) FROM anomalies WHERE resolved_at IS NULL GROUP BY reason ORDER BY reason"
# The oldest by the smallest id: the marks have no time of their own, and an index by which to find it.
OUTBOX: Final = """
    SELECT d.destination, m.marks, coalesce(extract(epoch FROM now() - o.created_at), 0)::float8
    FROM (SELECT destination FROM destinations UNION SELECT DISTINCT destination FROM outbox_unpublished) AS d
    CROSS JOIN LATERAL (
        SELECT count(*) AS marks, min(outbox_id) AS oldest FROM outbox_unpublished WHERE destination = d.destination
    ) AS m
    LEFT JOIN outbox o ON o.outbox_id = m.oldest
    ORDER BY d.destination
"""
WALLETS: Final = """
    SELECT currency, sum(balance)::bigint, sum(pending)::bigint, sum(debt)::bigint FROM wallets GROUP BY currency
"""
BREAKAGE: Final = "SELECT currency, sum(balance)::bigint FROM balances WHERE account = 'breakage' GROUP BY currency"
# A campaign that has ended has no budget any more that could run out: most have spent theirs by then.
CAMPAIGNS: Final = """
    SELECT c.campaign_id, c.currency, coalesce(sum(b.balance), 0)::bigint,
           CASE WHEN (v.terms ->> 'ends_at')::timestamptz > now() THEN (v.terms ->> 'budget')::bigint END
    FROM campaigns c JOIN campaign_versions v USING (campaign_id, version)
    LEFT JOIN balances b ON b.account = 'campaign:' || c.campaign_id AND b.currency = c.currency
    GROUP BY c.campaign_id, c.currency, v.terms ->> 'budget', v.terms ->> 'ends_at'
"""
# Of other logins' sessions Postgres shows everybody the name; who else but a monitor sees more is told as unknown.
CONNECTIONS: Final = """
    SELECT coalesce(nullif(application_name, ''), 'unknown'), count(*) FROM pg_stat_activity
    WHERE datname = current_database() GROUP BY 1 ORDER BY 2 DESC
"""
SERVER: Final = """
    SELECT current_setting('max_connections')::int, pg_is_in_recovery(),
           CASE WHEN pg_is_in_recovery() THEN extract(epoch FROM now() - pg_last_xact_replay_timestamp())::float8 END
"""
STANDBYS: Final = """
    SELECT coalesce(sync_state, 'unknown'), count(*), max(extract(epoch FROM replay_lag))::float8
    FROM pg_stat_replication GROUP BY 1 ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What has not come to its end. Ages in seconds, 0 where there is nothing."""

    waiting: int
    waiting_oldest_s: float
    anomalies: dict[str, int]  # open ones by reason
    outbox: dict[str, tuple[int, float]]  # by destination: outcomes not published, and the age of the oldest


@dataclass(frozen=True, slots=True)
class Money:
    """What is owed, in minor units by currency."""

    wallets: dict[str, int]
    pending: dict[str, int]
    debt: dict[str, int]
    breakage: dict[str, int]


@dataclass(frozen=True, slots=True)
class CampaignSpend:
    """What a campaign has given and not got back, in minor units, and its budget if it has one and has not ended."""

    campaign_id: str
    currency: str
    net_spend: int
    budget: int | None


@dataclass(frozen=True, slots=True)
class Server:
    """The database server as this login may see it."""

    connections: dict[str, int]  # to this database, by application
    connections_max: int
    in_recovery: bool
    replay_age_s: float | None  # of a standby: how old what it replayed last is
    standbys: dict[str, tuple[int, float | None]]  # by how they are synchronized: how many, and the longest replay lag


def read_backlog(connection: Connection[Any]) -> Backlog:
    """What waits, is odd or is unpublished. Raises TransientError and StatementTimedOut."""
    with mapped_errors(blameless=True):
        waiting, oldest_s = connection.execute(WAITING).fetchall()[0]
        anomalies = dict(connection.execute(ANOMALIES).fetchall())
        outbox = {name: (marks, age_s) for name, marks, age_s in connection.execute(OUTBOX).fetchall()}
    return Backlog(waiting, oldest_s, anomalies, outbox)


def read_money(connection: Connection[Any]) -> Money:
    """The sums of all wallets, which costs a read of all wallets. Raises TransientError and StatementTimedOut."""
    with mapped_errors(blameless=True):
        rows = connection.execute(WALLETS).fetchall()
        breakage = dict(connection.execute(BREAKAGE).fetchall())
    wallets, pending, debt = ({row[0]: row[place] for row in rows} for place in (1, 2, 3))
    return Money(wallets, pending, debt, breakage)


def read_campaigns(connection: Connection[Any]) -> list[CampaignSpend]:
    """Every campaign's spending, from its balances. Raises TransientError and StatementTimedOut."""
    with mapped_errors(blameless=True):
        return [CampaignSpend(*row) for row in connection.execute(CAMPAIGNS).fetchall()]


def read_server(connection: Connection[Any]) -> Server:
    """Connections and replication. Raises TransientError and StatementTimedOut."""
    with mapped_errors(blameless=True):
        connections = dict(connection.execute(CONNECTIONS).fetchall())
        most, in_recovery, replay_age_s = connection.execute(SERVER).fetchall()[0]
        standbys = {state: (number, lag_s) for state, number, lag_s in connection.execute(STANDBYS).fetchall()}
    return Server(connections, most, in_recovery, replay_age_s, standbys)
