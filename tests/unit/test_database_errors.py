"""Every error that Postgres can raise has one meaning here: transient, or whatever it is for the batch to find out."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors as pg

from incentive_fleet.errors import DatabaseContention, DatabaseUnavailable
from incentive_fleet.ledger.connection import mapped_errors

STATES = {
    error.sqlstate: error
    for error in vars(pg).values()
    if isinstance(error, type) and issubclass(error, psycopg.Error) and error.sqlstate
}

CONTENTION = {pg.SerializationFailure, pg.DeadlockDetected, pg.LockNotAvailable, pg.QueryCanceled}
AWAY = {
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
BUGS = {
    pg.UniqueViolation,
    pg.CheckViolation,
    pg.NotNullViolation,
    pg.ForeignKeyViolation,
    pg.RestrictViolation,
    pg.UndefinedTable,
    pg.UndefinedColumn,
    pg.SyntaxError,
    pg.DivisionByZero,
    pg.NumericValueOutOfRange,
    pg.InsufficientPrivilege,
    pg.UntranslatableCharacter,
    pg.ProgramLimitExceeded,
    pg.InternalError_,
}


def raised_as(error: Exception) -> type[BaseException]:
    with pytest.raises(Exception) as caught, mapped_errors():  # noqa: PT011
        raise error
    return caught.type


@pytest.mark.parametrize("error", sorted(CONTENTION, key=lambda error: error.__name__))
def test_what_another_transaction_did_is_contention(error: type[psycopg.Error]) -> None:
    assert raised_as(error("in the way")) is DatabaseContention


@pytest.mark.parametrize("error", sorted(AWAY, key=lambda error: error.__name__))
def test_a_server_that_is_away_is_unavailable(error: type[psycopg.Error]) -> None:
    assert raised_as(error("away")) is DatabaseUnavailable


@pytest.mark.parametrize("error", sorted(BUGS, key=lambda error: error.__name__))
def test_a_bug_stays_what_it_is(error: type[psycopg.Error]) -> None:
    assert raised_as(error("a bug")) is error


def test_a_connection_that_breaks_without_an_answer_is_unavailable() -> None:
    assert raised_as(psycopg.OperationalError("server closed the connection unexpectedly")) is DatabaseUnavailable
    assert raised_as(psycopg.InterfaceError("the connection is closed")) is DatabaseUnavailable
    assert (
        raised_as(psycopg.ProgrammingError("the query has 1 placeholder but 2 parameters")) is psycopg.ProgrammingError
    )


def test_every_state_of_the_manual_is_transient_by_its_class_or_a_bug() -> None:
    transient = {state for state, error in STATES.items() if raised_as(error("x")) is not error}
    assert {state[:2] for state in transient} == {"08", "25", "40", "53", "55", "57", "58"}
    assert {state for state in transient if state[:2] in {"25", "40", "55"}} == {
        "25006",
        "25P03",
        "40001",
        "40P01",
        "55P03",
    }
