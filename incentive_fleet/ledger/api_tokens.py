"""Tokens of the console's API: who a program is, and which roles it has. The secret is told once and kept as a hash alone.

`inct_ID_SECRET`: the id finds the row, the secret proves it. It decides nothing about what a role may.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.errors import Refused
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.people import ROLES

PATTERN: Final = re.compile(r"inct_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
NAME_MAX: Final = 200
DAYS_MAX: Final = 366
LISTED_MAX: Final = 1_000

ADD: Final = """
    INSERT INTO api_tokens (token_id, secret_sha256, name, roles, created_by, created_at, expires_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
FIND: Final = "SELECT secret_sha256, name, roles, expires_at FROM api_tokens WHERE token_id = %s AND revoked_at IS NULL"
LIST: Final = """
    SELECT token_id, name, roles, created_by, created_at, expires_at, revoked_by, revoked_at
    FROM api_tokens ORDER BY created_at DESC, token_id LIMIT %s
"""
REVOKE: Final = """
    UPDATE api_tokens SET revoked_by = coalesce(revoked_by, %s), revoked_at = coalesce(revoked_at, %s)
    WHERE token_id = %s RETURNING revoked_by, revoked_at
"""


@dataclass(frozen=True, slots=True)
class ApiToken:
    """One token, without its secret."""

    token_id: str
    name: str
    roles: list[str]
    created_by: str
    created_at: datetime
    expires_at: datetime
    revoked_by: str | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class TokenHolder:
    """Who came with a token."""

    name: str
    roles: list[str]
    expires_at: datetime


def create_token(
    connection: Connection[Any], name: str, roles: Sequence[str], actor: str, at: datetime, days: int
) -> tuple[ApiToken, str]:
    """Make a token that is good for `days`; returns what is kept of it, and the token, which nothing tells again.

    Not idempotent: each call makes another one. Raises Refused (token-name, token-roles, token-days) and TransientError.
    """
    # As a login's: the trail shows it, and four eyes compare it, so no two names look alike by what nobody sees.
    if not 1 <= len(name.strip()) <= NAME_MAX or not name.isprintable():
        raise Refused(
            "token-name",
            f"name is {name[: NAME_MAX + 1]!r}: say in 1 to {NAME_MAX} printable characters who acts with it",
        )
    if not roles or not set(roles) <= set(ROLES):
        raise Refused("token-roles", f"roles are {list(roles)!r}: name at least one of {', '.join(ROLES)}")
    if not 1 <= days <= DAYS_MAX:
        raise Refused("token-days", f"days is {days}: a token is good for 1 to {DAYS_MAX} days")
    token_id, secret, until = secrets.token_hex(6), secrets.token_urlsafe(32), at + timedelta(days=days)
    kept = ApiToken(token_id, name, sorted(set(roles)), actor, at, until, None, None)
    with mapped_errors():
        connection.execute(ADD, (token_id, _hash(secret), name, kept.roles, actor, at, until))
    return kept, f"inct_{token_id}_{secret}"


def holder_of(connection: Connection[Any], token: str, at: datetime) -> TokenHolder | None:
    """Whose token this is; None for one that is wrong, revoked or past its time. Raises TransientError."""
    parts = PATTERN.fullmatch(token)
    if parts is None:
        return None
    with mapped_errors(blameless=True):
        row = connection.execute(FIND, (parts[1],)).fetchone()
    # Compared in constant time, and with something even where there is no such token.
    if not hmac.compare_digest(row[0] if row else b"\0" * 32, _hash(parts[2])) or row is None or row[3] <= at:
        return None
    return TokenHolder(row[1], row[2], row[3])


def list_tokens(connection: Connection[Any]) -> list[ApiToken]:
    """The newest tokens first, the revoked ones too. Raises TransientError."""
    with mapped_errors(blameless=True):
        return [ApiToken(*row) for row in connection.execute(LIST, (LISTED_MAX,))]


def revoke_token(connection: Connection[Any], token_id: str, actor: str, at: datetime) -> tuple[str, datetime]:
    """Let a token be good for nothing from now on; who revoked it and when. Idempotent: the first one stays.

    Raises Refused (unknown-token) and TransientError.
    """
    with mapped_errors():
        row = connection.execute(REVOKE, (actor, at, token_id)).fetchone()
    if row is None:
        raise Refused("unknown-token", f"token {token_id!r}: there is none of this id")
    return row[0], row[1]


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
