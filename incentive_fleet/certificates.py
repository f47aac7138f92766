"""Says why a certificate was not accepted, out of whatever a driver wrapped it into. It connects to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from ssl import SSLCertVerificationError
from typing import Final

WRAPPED_MOST: Final = 100  # errors looked at in one; drivers nest three or four


def certificate_fault(error: object) -> str:
    """Why the peer's certificate was not accepted, in OpenSSL's words; "" when that is not what went wrong."""
    found = next((one for one in _within(error) if isinstance(one, SSLCertVerificationError)), None)
    return f"its certificate is not accepted: {found.verify_message.rstrip('.')}" if found is not None else ""


def _within(error: object) -> Iterator[BaseException]:
    """The error and those that it came from, by every way in which libraries keep them."""
    waiting, seen = [error], 0
    while waiting and seen < WRAPPED_MOST:
        one = waiting.pop(0)
        if not isinstance(one, BaseException):
            continue
        seen += 1
        yield one
        waiting += [one.__cause__, one.__context__, *one.args]
        waiting += [getattr(one, "reason", None), getattr(one, "exception", None)]  # urllib's and pika's
        waiting += getattr(one, "exceptions", ())  # pika's, and groups
        waiting += getattr(one, "kwargs", {}).values()  # botocore's
