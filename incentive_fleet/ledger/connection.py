"""Connections to Postgres under the application's role, and the one place that maps its driver's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import tenacity
from psycopg import errors as pg

from incentive_fleet.errors import DatabaseContention, DatabaseUnavailable, SettingsError, TransientError

APPLICATION_ROLE = "incentives_app"
CONNECT_TIMEOUT_S = 10
STATEMENT_TIMEOUT_MS = 60_000  # a batch takes well under a second; what takes a minute is stuck
IDLE_IN_TRANSACTION_TIMEOUT_MS = 120_000  # a stopped process must not hold an order's lock for ever

# SQLSTATEs (Postgres manual, appendix A). Another transaction was in the way: the same work succeeds a little later.
CONTENTION_STATES = frozenset({"40001", "40P01", "55P03", "57014"})
# The server is away, starting, full or ended the session: connection exceptions, insufficient resources, operator
# intervention, system errors, read-only (a standby after a failover), and the idle-in-transaction timeout.
AWAY_STATES = ("08", "53", "57P", "58", "25006", "25P03")
CONTENTION_ATTEMPTS_MAX = 8
CONTENTION_WAIT_MAX_S = 1.0
PAUSE_MAX_S = 2.0  # between two attempts: a failover takes 10 to 20 s, and a wait that grew with it would double that
# The server is away or ended the session. AdminShutdown and the like arrive as OperationalError subclasses.
AWAY = (psycopg.OperationalError, psycopg.InterfaceError, pg.ReadOnlySqlTransaction)


def connect(url: str, *, application_name: str = "incentives") -> psycopg.Connection[tuple[object, ...]]:
    """Open a connection that has taken the application's role; transactions are begun explicitly.

    Raises DatabaseUnavailable (a retry helps) or SettingsError when the URL cannot be read or the schema is missing.
    A connection belongs to one thread.
    """
    with mapped_errors():
        try:
            connection = psycopg.connect(
                url,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_S,
                application_name=application_name,
                options=(
                    f"-c statement_timeout={STATEMENT_TIMEOUT_MS}"
                    f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_MS} -c timezone=UTC"
                ),
                # A host that vanished without a word is noticed within a minute, idle or in the middle of a statement;
                # Linux by itself would take a quarter of an hour.
                keepalives_idle=30,
                keepalives_interval=10,
                keepalives_count=3,
                tcp_user_timeout=60_000,
            )
        except psycopg.ProgrammingError as error:
            raise SettingsError(f"INCENTIVES_DATABASE_URL cannot be read: {error}") from None
        try:
            _take_role(connection)
        except BaseException:
            connection.close()
            raise
        connection.prepare_threshold = 1
        return connection


def _take_role(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    try:
        connection.execute(f"SET ROLE {APPLICATION_ROLE}")
        row = connection.execute("SELECT to_regclass('public.outbox_unpublished') IS NOT NULL").fetchone()
    except pg.InvalidParameterValue:
        row = None
    except pg.InsufficientPrivilege:
        user = connection.info.user
        raise SettingsError(
            f"The login {user} may not take the role {APPLICATION_ROLE}: run `incentives db upgrade`."
        ) from None
    if row is None or not row[0]:
        database = connection.info.dbname
        raise SettingsError(f"The database {database} has no ledger yet: run `incentives db upgrade` first.")


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Turn the driver's errors into ours: contention and absence are transient, everything else stays what it is."""
    try:
        yield
    except psycopg.Error as error:
        ours = _ours(error)
        if ours is None:
            raise
        raise ours(_first_line(error)) from error


def _ours(error: psycopg.Error) -> type[TransientError] | None:
    if error.sqlstate is None:  # no answer from a server: the connection could not be made, or broke
        away = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return DatabaseUnavailable if away else None
    if error.sqlstate in CONTENTION_STATES:
        return DatabaseContention
    return DatabaseUnavailable if error.sqlstate.startswith(AWAY_STATES) else None


def longest_pause_s(error: Exception, others_s: float) -> float:
    """The longest back-off after this error: short towards a database, `others_s` towards everything else."""
    return min(others_s, PAUSE_MAX_S) if isinstance(error, DatabaseUnavailable | DatabaseContention) else others_s


def retry_contention() -> tenacity.Retrying:
    """Retries, bounded and with jitter, of a whole transaction that lost against another one.

    A unique violation is one of those: an identity that another transaction took meanwhile is met by the next attempt's
    reads. One that persists is a bug, and leaves as it is.
    """
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((pg.DeadlockDetected, pg.SerializationFailure, pg.UniqueViolation)),
        stop=tenacity.stop_after_attempt(CONTENTION_ATTEMPTS_MAX),
        wait=tenacity.wait_random_exponential(multiplier=0.01, max=CONTENTION_WAIT_MAX_S),
        reraise=True,
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
