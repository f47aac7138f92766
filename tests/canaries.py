"""A secret for every setting that can carry one, and what of it may show: as it is, and in base64."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import quote

CANARY = "cAnArY"
SECRET = f"p/{CANARY}%:@&=?#'\" \u00e4"  # all that an address must escape
IN_URL = quote(SECRET, safe="")
KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}/secret",
    "AWS_SESSION_TOKEN": f"{CANARY}+token/==",
    "AWS_REGION": "eu-central-1",
}


def in_base64(text: str) -> Iterator[str]:
    """What of it shows in base64, wherever in a longer text it stands."""
    raw = text.encode()
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        yield whole[first:last]


TRACES = (CANARY, *in_base64(CANARY))


def traces(text: str) -> list[str]:
    """What of a secret is in a text."""
    return [trace for trace in TRACES if trace in text]
