"""uvicorn's HTTP/1.1 protocol, guarded: a deadline for the request head, our error body, a way to drop a connection.

Without the deadline a client that sends one header byte a minute holds a connection for ever; without the way to drop
it, so does one that never reads its answer.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from appliance.api.sse import ABORT_EXTENSION

HEAD_DEADLINE_S = 15.0
STREAMS_FIRST = 2
"""Times the write deadline: a stream's own deadline comes first, because its record says why it ended."""
LEAST_TAKEN_BYTES = 2**16
"""What a reader of a large answer must take in each term."""
BAD_HTTP_BODY = (
    b'{"error":{"message":"this is not HTTP/1.1 as it should be, or its head is too large",'
    b'"type":"invalid_request_error","param":null,"code":"bad_http"}}'
)


class GuardedH11Protocol(H11Protocol):
    """One connection.  The timer runs while a head is being waited for."""

    write_deadline_s: float
    """A reader must take some of what was written to it within twice this time; set by `guarded_protocol`."""
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    """Runs while more waits for the reader than the transport likes to hold."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first head."""
        super().connection_made(transport)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every timer."""
        self._forget_head()
        self._forget_write()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes in; once they complete a head, the body's own deadline takes over."""
        super().data_received(data)
        if self.scope is not None:  # the application's task reads it after this call has returned
            extensions = self.scope.setdefault("extensions", {})
            extensions[ABORT_EXTENSION] = {"abort": self.transport.abort}
        if self._in_request():
            self._forget_head()
        elif self._head_timer is None:
            self._watch_head()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, in the body every other error has."""
        del msg  # it quotes the parser, never needed by a client
        reason = b"Bad Request"
        head = (
            b"HTTP/1.1 400 "
            + reason
            + b"\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: "
            + str(len(BAD_HTTP_BODY)).encode()
            + b"\r\n\r\n"
        )
        self.transport.write(head + BAD_HTTP_BODY)
        self.transport.close()

    def pause_writing(self) -> None:
        """Begin to wait for the reader."""
        super().pause_writing()
        if self._write_timer is None:
            self._watch_write()

    def resume_writing(self) -> None:
        """The reader has caught up."""
        super().resume_writing()
        self._forget_write()

    def _watch_write(self) -> None:
        waiting_bytes = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(
            STREAMS_FIRST * self.write_deadline_s, self._write_is_late, waiting_bytes
        )

    def _write_is_late(self, waited_bytes: int) -> None:
        """Drop a reader who took next to nothing; one that is slow and steady has another term."""
        self._write_timer = None
        if self.transport.get_write_buffer_size() > waited_bytes - LEAST_TAKEN_BYTES:
            self.transport.abort()
        else:
            self._watch_write()

    def _forget_write(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _in_request(self) -> bool:
        cycle = cast("Any", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _watch_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_DEADLINE_S, self._head_is_late)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self._in_request() and not self.transport.is_closing():
            self.transport.close()


def guarded_protocol(write_deadline_s: float) -> type[GuardedH11Protocol]:
    """Give the protocol class with its deadline: uvicorn makes the instances."""
    return type("GuardedH11Protocol", (GuardedH11Protocol,), {"write_deadline_s": write_deadline_s})
