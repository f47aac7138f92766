"""Who acts: a service, whose login may take the application's role and may say for whom it acts, or a person by their own login.

The database knows who is logged in and refuses an act under another name (keep_actor in the schema); this says so in a sentence.
It grants nothing: a database administrator does.
"""

from __future__ import annotations

from typing import Any, Final

from psycopg import Connection

from incentive_fleet.errors import Refused
from incentive_fleet.ledger.connection import mapped_errors

ROLES: Final = ("incentives_viewer", "incentives_support", "incentives_operator", "incentives_approver")

WHO: Final = "SELECT session_user::text, pg_has_role(session_user, 'incentives_app', 'MEMBER')"


def require_service(connection: Connection[Any], what: str) -> None:
    """Raise Refused (takes-a-service) where a person's login asks for `what`, which writes in the ledger; and TransientError."""
    with mapped_errors(blameless=True):
        row = connection.execute(WHO).fetchone()
    assert row is not None
    if not row[1]:
        raise Refused(
            "takes-a-service", f"{what} writes in the ledger, which the login {row[0]} may not: use the service's login"
        )


def actor_of(connection: Connection[Any], named: str | None, otherwise: str) -> str:
    """In whose name this connection acts: a person in their login's, a service in that which is named, else in `otherwise`.

    Raises Refused (actor-not-yours) when a person names somebody else, and TransientError.
    """
    with mapped_errors(blameless=True):
        row = connection.execute(WHO).fetchone()
    assert row is not None
    login, service = row
    if service:
        return otherwise if named is None else named
    if named is not None and named != login:
        raise Refused(
            "actor-not-yours",
            f"the login {login} acts as {login}: only a service's login may name another actor, and {named!r} was named",
        )
    return str(login)
