"""What every request finds: settings, connections, and who asks. One object a process; a request reads it and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from incentive_fleet.console.connections import Connections
from incentive_fleet.console.visitors import Visitor
from incentive_fleet.errors import Refused
from incentive_fleet.measuring import Tally
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop


@dataclass(frozen=True, slots=True)
class Premises:
    """Of one process."""

    settings: Settings
    connections: Connections
    stop: Stop  # what lives longer than a request ends with it
    tally: Tally  # the event loop's own


def premises_of(request: HTTPConnection) -> Premises:
    """Of the process that answers this request."""
    found = request.app.state.premises
    assert isinstance(found, Premises)
    return found


def visitor_of(request: HTTPConnection) -> Visitor:
    """Who asks. Raises Refused (login-needed) where nobody has said so."""
    visitor = request.scope.get("visitor")
    if not isinstance(visitor, Visitor):
        raise Refused("login-needed", "nobody is logged in, and no token came with the request")
    return visitor


async def still_known(request: HTTPConnection) -> bool:
    """Whether who asked is still let in; an answer that goes on for longer than its request looks it up."""
    found: bool = await request.scope["still_known"](request)
    return found
