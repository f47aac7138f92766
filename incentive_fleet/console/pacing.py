"""How often each visitor, and each address of those whom nobody knows, may ask. The event loop's; it waits for nothing."""

from __future__ import annotations

import time
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from starlette.requests import HTTPConnection

from incentive_fleet.console.visitors import Visitor
from incentive_fleet.errors import Refused

VISITORS_MAX: Final = 10_000
STRANGERS_PER_S: Final = 20  # all who are not known, from one address
IPV6_ONES: Final = 64  # bits of an address that its owner did not choose


class Paces:
    """A bucket of tokens a visitor, filled as time goes on. Of those who were here longest ago it forgets."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def require(self, visitor: Visitor | None, address: str) -> None:
        """Raises Refused (too-many-requests) where this one has asked too often; a second later a retry helps."""
        who = ("address", address) if visitor is None else (visitor.way, visitor.name)
        per_s = STRANGERS_PER_S if visitor is None else self._per_s
        now = time.monotonic()
        left, since = self._buckets.pop(who, (2.0 * per_s, now))
        left = min(2.0 * per_s, left + (now - since) * per_s)
        self._buckets[who] = (max(0.0, left - 1), now)
        if len(self._buckets) > VISITORS_MAX:
            self._buckets.popitem(last=False)
        if left < 1:
            raise Refused("too-many-requests", f"more than {per_s} requests a second")


def address_of(request: HTTPConnection, proxies: int) -> str:
    """Where a request comes from. Each of our own proxies writes whom it heard at the end of X-Forwarded-For; what stands before
    those, anybody may have written."""
    heard = request.client.host if request.client else ""
    told = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
    if 0 < proxies <= len(told):
        heard = told[-proxies].strip()
    try:
        address = ip_address(heard)
    except ValueError:
        return ""  # all who come from no address are one
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((address, IPV6_ONES), strict=False))
    return str(address)
