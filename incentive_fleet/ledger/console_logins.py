"""Logins of the console that hold: a row each, until its person logs out, its hours are over or somebody ends it.

Who a browser's person is, the issuer says and the console writes down here; what a role may is decided elsewhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.ledger.connection import mapped_errors

OF_A_PERSON_MAX: Final = 20  # a login more ends the oldest of them
SWEPT_MAX: Final = 1_000
LISTED_MAX: Final = 1_000

# Two who sweep at once take each what the other one does not hold.
SWEEP: Final = """
    DELETE FROM console_logins WHERE login_id IN (
        SELECT login_id FROM console_logins WHERE ends_at <= %s LIMIT %s FOR UPDATE SKIP LOCKED)
"""
CROWD_OUT: Final = """
    DELETE FROM console_logins WHERE login_id IN (
        SELECT login_id FROM console_logins WHERE name = %s ORDER BY began_at DESC, login_id OFFSET %s
        FOR UPDATE SKIP LOCKED)
"""
ADD: Final = "INSERT INTO console_logins (login_id, name, roles, began_at, ends_at) VALUES (%s, %s, %s, %s, %s)"
FIND: Final = "SELECT login_id, name, roles, began_at, ends_at FROM console_logins WHERE login_id = %s AND ends_at > %s"
LIST: Final = """
    SELECT login_id, name, roles, began_at, ends_at FROM console_logins
    WHERE ends_at > %s ORDER BY began_at DESC, login_id LIMIT %s
"""
END: Final = "DELETE FROM console_logins WHERE login_id = %s"
END_ALL: Final = """
    WITH ended AS (DELETE FROM console_logins WHERE name = %(name)s AND ends_at > %(at)s RETURNING login_id)
    INSERT INTO login_acts (name, ended, actor, acted_at)
    SELECT %(name)s, count(*), %(actor)s, %(at)s FROM ended HAVING count(*) > 0 RETURNING ended
"""
ENDED: Final = "SELECT name, ended, actor, acted_at FROM login_acts ORDER BY act_no DESC LIMIT %s"


@dataclass(frozen=True, slots=True)
class ConsoleLogin:
    """One login. The id alone opens nothing: the cookie that names it is signed."""

    login_id: str
    name: str
    roles: list[str]
    began_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class PutOut:
    """All logins of a person were ended by somebody."""

    name: str
    ended: int  # how many held until then
    actor: str
    acted_at: datetime


def begin_login(
    connection: Connection[Any], name: str, roles: Sequence[str], began_at: datetime, ends_at: datetime
) -> str:
    """Write a login down and sweep out what is over; returns its id. Not idempotent. Raises TransientError."""
    login_id = secrets.token_hex(16)
    with mapped_errors(), connection.transaction():
        connection.execute(SWEEP, (began_at, SWEPT_MAX))
        connection.execute(CROWD_OUT, (name, OF_A_PERSON_MAX - 1))
        connection.execute(ADD, (login_id, name, sorted(roles), began_at, ends_at))
    return login_id


def login_of(connection: Connection[Any], login_id: str, at: datetime) -> ConsoleLogin | None:
    """The login of this id; None for one that was ended or is over. Raises TransientError."""
    with mapped_errors(blameless=True):
        row = connection.execute(FIND, (login_id, at)).fetchone()
    return ConsoleLogin(*row) if row else None


def list_logins(connection: Connection[Any], at: datetime) -> list[ConsoleLogin]:
    """The logins that hold, the newest first. Raises TransientError."""
    with mapped_errors(blameless=True):
        return [ConsoleLogin(*row) for row in connection.execute(LIST, (at, LISTED_MAX))]


def end_login(connection: Connection[Any], login_id: str) -> None:
    """Let one login be over. Idempotent. Raises TransientError."""
    with mapped_errors():
        connection.execute(END, (login_id,))


def end_logins_of(connection: Connection[Any], name: str, actor: str, at: datetime) -> int:
    """Let all logins of a person be over and keep who did it; how many held until now. Idempotent. Raises TransientError."""
    with mapped_errors():
        row = connection.execute(END_ALL, {"name": name, "actor": actor, "at": at}).fetchone()
    return row[0] if row else 0


def list_put_out(connection: Connection[Any]) -> list[PutOut]:
    """Who was put out, by whom and when, the newest first. Raises TransientError."""
    with mapped_errors(blameless=True):
        return [PutOut(*row) for row in connection.execute(ENDED, (LISTED_MAX,))]
