"""Hears when a COMMIT was not replicated, where the server is set to replicate synchronously. It never waits by itself.

A COMMIT waits for the standby, without a time limit. Who cancels that wait (`pg_cancel_backend`, for it looks stuck) does not
undo the COMMIT: Postgres reports success, after a warning. What only a server has that may be about to lose its place is lost
with it; so that success counts as a connection that broke during COMMIT, of which nobody knows what became. The work is
given again and is a duplicate then, whose COMMIT waits for the standby as well, for it has locked its rows.
"""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg.errors import Diagnostic

# The function of the server that warns. The text is translated and the code that of any warning; this is neither.
WAITS: Final = "SyncRepWaitForLSN"
NOT_REPLICATED: Final = (
    "the server committed, and stopped waiting for its synchronous standby to confirm it: "
    "what only this server has may be lost with it"
)


class NotReplicated(psycopg.OperationalError):
    """Mapped like a connection that broke: DatabaseUnavailable, and a retry helps once a standby confirms again."""


def is_not_replicated(notice: Diagnostic) -> bool:
    """Whether a notice says that the COMMIT under way is on this server alone."""
    return notice.source_function == WAITS
