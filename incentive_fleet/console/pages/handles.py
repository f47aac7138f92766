"""Handles: what stands in an address for a customer, an order or a search, so that neither addresses nor logs hold personal data.

A handle is the name itself, encrypted with a key of the server's (Fernet: AES and an HMAC), because an address ends up in
histories, bookmarks, proxies' logs and screenshots. It is one mechanism for all: links stay links, which open in a new tab, can be
gone back to and work from a keyboard, where a form styled as a link does none of that. A name that is looked up comes in the
body of a form; the answer leads to its handle. A handle is good for as long as a login, and names nothing once the key changed.
It is no right: whoever opens one is asked for theirs as anywhere else.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any, Final, Literal

from cryptography.fernet import Fernet, InvalidToken

from incentive_fleet.errors import Refused
from incentive_fleet.settings import Settings

Kind = Literal["customer", "order", "search", "row"]
CHARACTERS_MAX: Final = 8_000  # of a handle in an address
HOUR_S: Final = 3_600
_OWN_KEY: Final = token_urlsafe(32)  # of this process, where no key is set: its handles end with it


def seal(settings: Settings, kind: Kind, value: Any) -> str:
    """The handle of a JSON value."""
    text = json.dumps([kind, value], ensure_ascii=False, separators=(",", ":"))
    return _fernet(settings).encrypt(text.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def unseal(settings: Settings, kind: Kind, handle: str) -> Any:
    """What the handle stands for. Raises Refused (link-expired) also where it is no handle of this kind."""
    try:
        if len(handle) > CHARACTERS_MAX:
            raise InvalidToken
        text = _fernet(settings).decrypt(handle + "=" * (-len(handle) % 4), ttl=settings.session_hours * HOUR_S)
        found, value = json.loads(text.decode("utf-8", "surrogatepass"))
    except InvalidToken:
        found, value = None, None
    if found != kind:
        raise Refused("link-expired", f"this link is too old, or was cut short: look the {kind} up again")
    return value


def _fernet(settings: Settings) -> Fernet:
    key = settings.session_key or _OWN_KEY
    return Fernet(urlsafe_b64encode(sha256(b"handles of the console\0" + key.encode()).digest()))
