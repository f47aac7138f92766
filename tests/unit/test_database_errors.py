"""Every error that Postgres can raise has one meaning here: transient, or whatever it is for the batch to find out."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors as pg

from incentive_fleet.errors import DatabaseContention, DatabaseUnavailable, DatabaseUnfit, StatementTimedOut
from incentive_fleet.ledger.connection import mapped_errors

Errors = set[type[psycopg.Error]]
STATES = {
    error.sqlstate: error
    for error in vars(pg).values()
    if isinstance(error, type) and issubclass(error, psycopg.Error) and error.sqlstate
}

CONTENTION: Errors = {pg.SerializationFailure, pg.DeadlockDetected, pg.LockNotAvailable}
AWAY: Errors = {
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.CannotConnectNow,
    pg.ConnectionFailure,
    pg.TooManyConnections,
    pg.DiskFull,
    pg.OutOfMemory,
    pg.IdleInTransactionSessionTimeout,
    pg.ReadOnlySqlTransaction,
    pg.IoError,
}
UNFIT: Errors = {
    pg.UndefinedTable,
    pg.UndefinedColumn,
    pg.SyntaxError,
    pg.InsufficientPrivilege,
    pg.FeatureNotSupported,
    pg.InvalidPassword,
    pg.InvalidCatalogName,
    pg.InvalidSchemaName,
    pg.InvalidSqlStatementName,
    pg.InFailedSqlTransaction,
}
BUGS: Errors = {
    pg.UniqueViolation,
    pg.CheckViolation,
    pg.NotNullViolation,
    pg.ForeignKeyViolation,
    pg.RestrictViolation,
    pg.DivisionByZero,
    pg.NumericValueOutOfRange,
    pg.UntranslatableCharacter,
    pg.ProgramLimitExceeded,
    pg.InternalError_,
}


def raised_as(error: Exception) -> type[BaseException]:
    with pytest.raises(Exception) as caught, mapped_errors():  # noqa: PT011
        raise error
    return caught.type


@pytest.mark.parametrize("error", sorted(CONTENTION, key=str))
def test_what_another_transaction_did_is_contention(error: type[psycopg.Error]) -> None:
    assert raised_as(error("in the way")) is DatabaseContention


@pytest.mark.parametrize("error", sorted(AWAY, key=str))
def test_a_server_that_is_away_is_unavailable(error: type[psycopg.Error]) -> None:
    assert raised_as(error("away")) is DatabaseUnavailable


@pytest.mark.parametrize("error", sorted(UNFIT, key=str))
def test_what_every_event_would_meet_is_an_unfit_database(error: type[psycopg.Error]) -> None:
    assert raised_as(error("not as it should be")) is DatabaseUnfit


def test_a_statement_that_took_too_long_has_a_kind_of_its_own() -> None:
    assert raised_as(pg.QueryCanceled("too long")) is StatementTimedOut


@pytest.mark.parametrize("error", sorted(BUGS, key=str))
def test_a_bug_stays_what_it_is(error: type[psycopg.Error]) -> None:
    assert raised_as(error("a bug")) is error


def test_a_connection_that_breaks_without_an_answer_is_unavailable() -> None:
    assert raised_as(psycopg.OperationalError("server closed the connection unexpectedly")) is DatabaseUnavailable
    assert raised_as(psycopg.InterfaceError("the connection is closed")) is DatabaseUnavailable
    assert (
        raised_as(psycopg.ProgrammingError("the query has 1 placeholder but 2 parameters")) is psycopg.ProgrammingError
    )


def test_every_state_of_the_manual_is_the_worlds_by_its_class_or_a_bug() -> None:
    means = {state: raised_as(error("x")) for state, error in STATES.items()}
    classes = {
        ours: {state[:2] for state, meaning in means.items() if meaning is ours}
        for ours in (DatabaseContention, DatabaseUnavailable, DatabaseUnfit, StatementTimedOut)
    }
    assert classes == {
        DatabaseContention: {"40", "55"},
        DatabaseUnavailable: {"08", "25", "53", "57", "58"},
        DatabaseUnfit: {"0A", "25", "26", "28", "3D", "3F", "42"},
        StatementTimedOut: {"57"},
    }
    assert {state for state, meaning in means.items() if meaning is DatabaseContention} == {"40001", "40P01", "55P03"}
    assert {state for state, meaning in means.items() if meaning is DatabaseUnavailable and state[:2] == "25"} == {
        "25006",
        "25P03",
    }
