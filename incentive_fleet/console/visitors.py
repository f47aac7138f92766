"""Who asks, and what that one may: the four roles of docs/operators.md, and what each kind of work takes.

It opens nothing and asks nobody; login.py says who the visitor is, and the database holds the roles once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from incentive_fleet.errors import Refused

Role = Literal["incentives_viewer", "incentives_support", "incentives_operator", "incentives_approver"]
VIEWER: Final = "incentives_viewer"
SUPPORT: Final = "incentives_support"
OPERATOR: Final = "incentives_operator"
APPROVER: Final = "incentives_approver"
SERVICE: Final = "incentives_app"

# Whoever may operate or approve may read everything, and whoever may read everything may look.
INCLUDED: Final[dict[Role, frozenset[Role]]] = {
    VIEWER: frozenset({VIEWER}),
    SUPPORT: frozenset({VIEWER, SUPPORT}),
    OPERATOR: frozenset({VIEWER, SUPPORT, OPERATOR}),
    APPROVER: frozenset({VIEWER, SUPPORT, APPROVER}),
}
Way = Literal["login", "token", "local"]


class Work(Enum):
    """A kind of work: its name, the least role that a visitor needs for it, and the role under which the database does it."""

    LOOK = ("look", VIEWER, VIEWER)  # what is the matter and what was done about it; nothing that came with a message
    READ = ("read", SUPPORT, SUPPORT)  # bodies, orders, wallets
    QUOTE = ("quote", SUPPORT, SERVICE)  # the core decides, and writes nothing
    OPERATE = ("operate", OPERATOR, OPERATOR)  # change and send letters
    APPROVE = ("approve", APPROVER, APPROVER)  # let a run go on, purge
    # The core writes in the ledger, in the visitor's name; a rehearsal does, and rolls back.
    REHEARSE = ("rehearse", OPERATOR, SERVICE)
    BOOK = ("book", OPERATOR, SERVICE)  # grants and their reversal, anomalies resolved, holds

    def __init__(self, _: str, needs: Role, role: str) -> None:  # the name keeps two with the same roles apart
        self.needs: Role = needs
        self.role = role


@dataclass(frozen=True, slots=True)
class Visitor:
    """One who asks. `name` goes into the trail of what is done; `roles` hold what they include."""

    name: str
    roles: frozenset[Role]
    way: Way

    def may(self, work: Work) -> bool:
        """Whether that work is theirs to ask for."""
        return work.needs in self.roles

    def require(self, work: Work) -> None:
        """Raises Refused (role-missing) unless that work is theirs to ask for; a retry does not help."""
        if not self.may(work):
            raise Refused("role-missing", f"this takes the role {work.needs}, which {self.name} does not have")


def roles_of(named: object) -> frozenset[Role]:
    """The roles among names from outside, with what they include; names that mean nothing here are left out."""
    names = named if isinstance(named, list | tuple | set | frozenset) else ()
    return frozenset(role for given, included in INCLUDED.items() if given in names for role in included)


EVERYTHING: Final = roles_of((OPERATOR, APPROVER))
