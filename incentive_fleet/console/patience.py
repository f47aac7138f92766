"""uvicorn's connection, with an end to its patience: who connects and does not finish a request, or sends on and on after its
answer, is hung up on, and so is who asks and does not take the answer.

Otherwise as many connections as are served at once, each sending or taking a byte now and then, would keep everybody else out.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S: Final = 10.0  # from a request's first byte, or the connection's beginning, to the end of its headers
TAKE_S: Final = 15.0  # in which a client takes at least TAKEN_MIN of what lies ready for it
TAKEN_MIN: Final = 16 * 1024
ANSWERING: Final = (h11.SEND_RESPONSE, h11.SEND_BODY)


class PatientProtocol(H11Protocol):
    """One connection; the event loop's."""

    _patience: asyncio.TimerHandle | None = None
    _looks: asyncio.TimerHandle | None = None
    _untaken = 0  # bytes that lay ready at the last look

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._untaken = 0

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._have_patience()
        if self._looks is not None:
            self._looks.cancel()

    def _watch(self) -> None:
        """The clock runs while we answer nothing: from a head's first byte, or that of a body whose answer went out before its end,
        not from the last byte."""
        if self.conn.our_state in ANSWERING:
            self._have_patience()
        elif self._patience is None:
            self._patience = self.loop.call_later(HEAD_S, self._hang_up)

    def _have_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _hang_up(self) -> None:
        self._patience = None
        if self.conn.our_state not in ANSWERING:
            self.transport.close()

    def _look(self) -> None:
        """An answer that nobody takes ends with its connection: closing would wait until all of it was taken."""
        left = self.transport.get_write_buffer_size()
        if left and self._untaken and left > self._untaken - TAKEN_MIN:
            self.transport.abort()
            return
        self._untaken = left
        self._looks = self.loop.call_later(TAKE_S, self._look)
