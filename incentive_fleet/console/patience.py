"""uvicorn's connection, with an end to its patience: who connects and does not finish the head of a request is hung up on.

Otherwise as many connections as are served at once, each sending a byte now and then, would keep everybody else out.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S: Final = 10.0  # from the connection, or the answer before, to the end of a request's headers


class PatientProtocol(H11Protocol):
    """One connection; the event loop's."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._have_patience()

    def _watch(self) -> None:
        """The clock runs while a head is awaited: from its first byte, or the connection's beginning, not from its last byte."""
        if self.conn.our_state is not h11.IDLE:
            self._have_patience()
        elif self._patience is None:
            self._patience = self.loop.call_later(HEAD_S, self._hang_up)

    def _have_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _hang_up(self) -> None:
        self._patience = None
        if self.conn.our_state is h11.IDLE:
            self.transport.close()
