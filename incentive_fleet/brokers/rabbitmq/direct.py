"""The names that RabbitMQ gives to direct reply-to, and which of them look like none of its own. Pure.

A name holds a process of RabbitMQ's, in Erlang's external form, and it falls over one that it cannot read: it closes the connection
of whoever answers there. The form may change with a release, so a name of another is no proof of anything by itself.
"""

from __future__ import annotations

import base64
import re
from typing import Final

DIRECT: Final = "amq.rabbitmq.reply-to."
# NEW_PID_EXT: an atom for the node, which stands for one by its number, and three numbers of 32 bits.
_PROCESS: Final = re.compile(rb"\x83X(?:[vd]\0|[ws])(.)(reply@[0-9]{1,20}).{12}", re.DOTALL)


def is_direct(address: str) -> bool:
    """Whether it is no queue: who is gone is not noticed there."""
    return address.startswith(DIRECT)


def looks_foreign(address: str) -> bool:
    """Whether a name of direct reply-to is of no form that we know."""
    process, dot, key = address.removeprefix(DIRECT).partition(".")
    if not is_direct(address) or not dot or not key:
        return is_direct(address)
    try:
        found = _PROCESS.fullmatch(base64.b64decode(process, validate=True))
    except ValueError:
        return True
    return found is None or found[1][0] != len(found[2])
