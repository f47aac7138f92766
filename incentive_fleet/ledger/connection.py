"""Connections to Postgres under the application's role, and the one place that maps its driver's errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

import psycopg
import tenacity
from psycopg import errors as pg

from incentive_fleet.errors import (
    DatabaseContention,
    DatabaseUnavailable,
    DatabaseUnfit,
    SchemaUnfit,
    SettingsError,
    StatementTimedOut,
    TransientError,
)
from incentive_fleet.ledger import certificate
from incentive_fleet.ledger.address import (
    Parameters,
    each_host,
    parameters_of,
    settings_in,
    without_settings,
    without_values,
)
from incentive_fleet.ledger.leadership import Hosts, is_alone, place_of
from incentive_fleet.ledger.pooler import LedgerConnection, is_pooled, take_for_each_transaction, take_for_session
from incentive_fleet.ledger.preconditions import check_encoding, check_reach
from incentive_fleet.ledger.revision import require_fit
from incentive_fleet.measuring import Tally

APPLICATION_ROLE = "incentives_app"
LEAST_ROLE_OF_PEOPLE = "incentives_viewer"  # every other one has it (people.py)
MAY_TAKE = """
    SELECT to_regrole(%s) IS NOT NULL, coalesce(pg_has_role(session_user, to_regrole(%s), 'MEMBER'), false),
           coalesce(pg_has_role(session_user, to_regrole(%s), 'USAGE'), false)
"""
CONNECT_TIMEOUT_S = 10
CONNECT_TIMEOUT_OF_SEVERAL_S = 3  # a host that vanished shall not keep us from the one that took over
VANISHED_AFTER_S = 20  # a host that lost its power says no word; by then somebody else leads (Patroni's ttl)
STATEMENT_TIMEOUT_MS = 60_000  # a batch takes well under a second; what takes a minute is stuck
IDLE_IN_TRANSACTION_TIMEOUT_MS = 120_000  # a stopped process must not hold an order's lock for ever

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
USUAL = MappingProxyType(
    {
        "statement_timeout": str(STATEMENT_TIMEOUT_MS),
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
    }
)
# What the code relies on, whatever a role, a database or the options of a URL say; the role comes last, for it may do less.
NEEDED = MappingProxyType(
    {
        "timezone": "UTC",
        "datestyle": "ISO, MDY",
        "default_transaction_isolation": "read committed",
        "row_security": "off",  # rows that a policy hides are an error, not rows that are not there
        "role": APPLICATION_ROLE,
    }
)

# SQLSTATEs (Postgres manual, appendix A). Another transaction was in the way: the same work succeeds a little later.
CONTENTION_STATES = frozenset({"40001", "40P01", "55P03"})
TIMED_OUT = "57014"
# The server is away, starting, full or ended the session: connection exceptions, insufficient resources, operator
# intervention, system errors, read-only (a standby after a failover), and the idle-in-transaction timeout.
AWAY_STATES = ("08", "25006", "25P03", "53", "57", "58")
# It answers, and refuses what every event needs: a plan that a change of the schema spoiled (0A000), transaction state, a
# prepared statement that a pooler lost, login, database, schema, and what is missing, forbidden or of another type (class 42).
UNFIT_STATES = ("0A", "25", "26", "28", "3D", "3F", "42")
# What another transaction was in the way with, as metrics call it.
IN_THE_WAY: Mapping[type[BaseException], str] = MappingProxyType(
    {
        pg.DeadlockDetected: "deadlock",
        pg.SerializationFailure: "serialization-failure",
        pg.UniqueViolation: "identity-taken",
    }
)
CONTENTION_ATTEMPTS_MAX = 8
CONTENTION_WAIT_MAX_S = 1.0


def connect(
    url: str, *, application_name: str = "incentives", settings: Mapping[str, str] = NO_SETTINGS
) -> LedgerConnection:
    """Open a connection that has taken the application's role; transactions are begun explicitly.

    `settings` are more of them than every connection has. Those in the options of the URL win over ours, but for NEEDED.
    Behind a pooler each transaction takes role and settings for itself (pooler.py). Raises DatabaseUnavailable, DatabaseUnfit,
    SchemaUnfit and a pooler of no use included (a retry helps once it is mended), or SettingsError when the URL cannot be
    read. A connection belongs to one thread.
    """
    parameters = parameters_of(url)
    with mapped_errors(blameless=True):
        connection = open_connection(parameters, application_name)
        try:
            _take_role(connection, settings, settings_in(parameters.get("options") or ""))
            _check_ledger(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def effective_settings(parameters: Parameters) -> Mapping[str, str]:
    """What each connection of `connect` is set to by us and by the address; all else is the server's, or the login's."""
    return {**USUAL, **settings_in(parameters.get("options") or ""), **NEEDED}


def open_connection(parameters: Parameters, application_name: str) -> LedgerConnection:
    """Open a connection as the login itself, with nothing taken yet.

    Raises what psycopg raises, in words that repeat no value of the address but where it leads.
    """
    options = parameters.get("options") or ""
    try:
        return _open(parameters, application_name)
    except psycopg.errors.ConnectionTimeout:
        raise
    except psycopg.OperationalError:
        if not settings_in(options):
            raise
        # Many a pooler lets nobody in who asks for settings; there each transaction takes them.
        connection = _open({**parameters, "options": without_settings(options)}, application_name)
        if is_pooled(connection):
            return connection
        connection.close()
        raise


def _open(parameters: Parameters, application_name: str) -> LedgerConnection:
    try:
        return _lead(_dial(parameters, application_name), parameters, application_name)
    except psycopg.errors.ConnectionTimeout:
        raise
    except psycopg.OperationalError as error:
        told = without_values(str(error), parameters)
        if fault := certificate.fault(parameters):
            told = f"{fault}; {told}"
        if told == str(error):
            raise
        raise type(error)(told) from None


def _lead(connection: LedgerConnection, parameters: Parameters, application_name: str) -> LedgerConnection:
    """The same connection, or one to the host that leads in its place; from now on it looks for one while it waits."""
    if len(each := each_host(parameters)) == 1:
        return connection
    # Who is asked for a number alone needs none of the settings, which many a pooler refuses.
    brief = {
        "options": without_settings(parameters.get("options") or ""),
        "connect_timeout": CONNECT_TIMEOUT_OF_SEVERAL_S,
        "tcp_user_timeout": CONNECT_TIMEOUT_OF_SEVERAL_S * 1_000,
    }
    hosts = Hosts(each, lambda one: _dial({**one, **brief}, application_name))
    leader: Parameters | None = None
    try:
        leader = hosts.leader_over(*place_of(connection)) if is_alone(connection) else None
    except BaseException:
        connection.close()
        raise
    if leader is not None:
        connection.close()
        connection = _dial(leader, application_name)
    connection.superseded = partial(hosts.instead_of, *place_of(connection))
    return connection


def require_leading(connection: psycopg.Connection[Any]) -> None:
    """For a connection that is kept and only reads: whoever waits for a COMMIT is told without asking (leadership.py).

    Raises DatabaseUnavailable, on a connection then closed; the next one is to the host that leads.
    """
    if isinstance(connection, LedgerConnection):
        with mapped_errors(blameless=True):
            connection.require_leading()


def _dial(parameters: Parameters, application_name: str) -> LedgerConnection:
    several = "," in str(parameters.get("host") or "")
    connection = LedgerConnection.connect(
        **{
            "connect_timeout": CONNECT_TIMEOUT_OF_SEVERAL_S if several else CONNECT_TIMEOUT_S,
            # Linux by itself would take a quarter of an hour. Idle, or waiting for an answer: probes find out; with
            # something sent that nobody acknowledges: the last of the four does.
            "keepalives_idle": VANISHED_AFTER_S // 2,
            "keepalives_interval": VANISHED_AFTER_S // 4,
            "keepalives_count": 2,
            "tcp_user_timeout": VANISHED_AFTER_S * 1_000,
            "application_name": application_name,
            **parameters,
            "client_encoding": "UTF8",
        },
        autocommit=True,
    )
    connection.heed_replication()
    return connection


def _take_role(connection: LedgerConnection, settings: Mapping[str, str], asked: Mapping[str, str]) -> None:
    database, ours = connection.info.dbname, {**USUAL, **settings}
    row = connection.execute(MAY_TAKE, (APPLICATION_ROLE,) * 2 + (LEAST_ROLE_OF_PEOPLE,), prepare=False).fetchone()
    # A person acts by their own login, whose roles it inherits; all others are services, or may do nothing here.
    needed = {**NEEDED, "role": "none"} if row is not None and row[1:] == (False, True) else NEEDED
    if row is None or not row[0]:
        raise SchemaUnfit(f"The database {database} has no ledger yet: run `incentives db upgrade` first.")
    try:
        if is_pooled(connection):  # what was asked for at the start belongs to whichever session that was
            take_for_each_transaction(connection, {**ours, **asked, **needed})
        else:
            take_for_session(connection, {name: ours[name] for name in ours.keys() - asked.keys()} | dict(needed))
            connection.prepare_threshold = 1
    except pg.InsufficientPrivilege:
        raise SchemaUnfit(
            f"The login {connection.info.user} may not take the role {APPLICATION_ROLE}: run `incentives db upgrade`."
        ) from None
    except (pg.InvalidParameterValue, pg.UndefinedObject, pg.CantChangeRuntimeParam) as error:
        raise SettingsError(f"An option in INCENTIVES_DATABASE_URL: {error.diag.message_primary}.") from None


def _check_ledger(connection: LedgerConnection) -> None:
    """What may change while a fleet runs, so that it is waited for. Raises SchemaUnfit."""
    require_fit(connection)
    try:
        check_encoding(connection)
        check_reach(connection)
    except SettingsError as error:
        raise SchemaUnfit(str(error)) from None


@contextmanager
def mapped_errors(*, blameless: bool = False) -> Iterator[None]:
    """Turn the driver's errors into ours where they are known to be the world's; everything else stays what it is.

    `blameless`: no message has a part in these statements, so whatever else Postgres says is DatabaseUnfit.
    """
    try:
        yield
    except psycopg.Error as error:
        ours = _ours(error) or (DatabaseUnfit if blameless else None)
        if ours is None:
            raise
        raise ours(_sentence(error)) from error


def _ours(error: psycopg.Error) -> type[TransientError | StatementTimedOut] | None:
    state = error.sqlstate
    if state is None:  # no answer from a server: the connection could not be made, or broke
        away = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return DatabaseUnavailable if away else None
    if state in CONTENTION_STATES:
        return DatabaseContention
    if state == TIMED_OUT:
        return StatementTimedOut
    if state.startswith(AWAY_STATES):
        return DatabaseUnavailable
    return DatabaseUnfit if state.startswith(UNFIT_STATES) else None


def retry_contention(tally: Tally | None = None) -> tenacity.Retrying:
    """Retries, bounded and with jitter, of a whole transaction that lost against another one.

    A unique violation is one of those: an identity that another transaction took meanwhile is met by the next attempt's
    reads. One that persists is a bug, and leaves as it is. `tally` is told each time.
    """

    def tell(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if tally is not None and error is not None:
            tally.add("incentives_transaction_retries_total", IN_THE_WAY[type(error)])

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(tuple(IN_THE_WAY)),
        stop=tenacity.stop_after_attempt(CONTENTION_ATTEMPTS_MAX),
        wait=tenacity.wait_random_exponential(multiplier=0.01, max=CONTENTION_WAIT_MAX_S),
        before_sleep=tell,
        reraise=True,
    )


def _sentence(error: psycopg.Error) -> str:
    """The first line of what the driver says; Postgres' own code with it, for whoever looks it up."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{line} (SQLSTATE {error.sqlstate})" if error.sqlstate else line
