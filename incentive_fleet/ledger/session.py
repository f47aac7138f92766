"""A session of the batch core: one connection, the terms it has in memory, and planner settings for batched look-ups."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import psycopg
from psycopg.types.json import set_json_loads
from pydantic_core import from_json

from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.terms import Terms
from incentive_fleet.measuring import Tally

# A batch looks hundreds of keys up by index. Plans are cached for the session, so they must not depend on how small the
# tables were when it started: a sequential scan that was right for an empty ledger is a catastrophe an hour later.
PLANNER = MappingProxyType(
    {
        "enable_seqscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "jit": "off",
        "plan_cache_mode": "force_generic_plan",
    }
)

# For whoever answers questions: Postgres itself refuses what would write, whichever statement a bug sends.
READ_ONLY: Final = MappingProxyType({"default_transaction_read_only": "on"})


@dataclass(slots=True)
class Session:
    """Belongs to one thread. `connection` is opened on first use and again after it was lost."""

    url: str
    application_name: str = "incentives"
    terms: Terms = field(default_factory=Terms)
    tally: Tally = field(default_factory=Tally)  # of the thread
    settings: Mapping[str, str] = field(default_factory=dict)  # of its connection, beside the planner's
    _connection: psycopg.Connection[Any] | None = None

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The open connection. Raises DatabaseUnavailable (a retry helps) or SettingsError."""
        if self._connection is None or self._connection.closed:
            connection = connect(
                self.url, application_name=self.application_name, settings={**PLANNER, **self.settings}
            )
            set_json_loads(from_json, context=connection)
            self._connection = connection
            self.terms = Terms()  # of which the same revision in a restored or another database says nothing
        return self._connection

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back. Idempotent."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):  # it may be broken already, which is as closed as can be
                self._connection.close()
            self._connection = None
