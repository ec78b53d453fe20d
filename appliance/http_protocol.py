"""uvicorn's HTTP/1.1 protocol, guarded: few enough connections, a deadline for the head, our error body, a way to drop.

Without the bound strangers who need no key take every descriptor, and then no engine can be started and no file opened.
Without the deadline a client that sends one header byte a minute holds a connection for ever; without the way to drop
it, so does one that never reads its answer.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

from appliance.api.sse import ABORT_EXTENSION

LOG = structlog.get_logger("cloister.http")
CONNECTIONS_AT_MOST = 8_192
"""However many files may be open: each connection costs memory, too, before anyone has shown a key."""
FILES_PER_CONNECTION = 4
"""Of this many files that may be open one may be a connection.  The event loop accepts a whole backlog before the first
of it is looked at; databases, worker threads and the next engine need descriptors in that moment as well."""
HEAD_DEADLINE_S = 15.0
STREAMS_FIRST = 2
"""Times the write deadline: a stream's own deadline comes first, because its record says why it ended."""
LEAST_TAKEN_BYTES = 2**16
"""What a reader of a large answer must take in each term."""
BAD_HTTP_BODY = (
    b'{"error":{"message":"this is not HTTP/1.1 as it should be, or its head is too large",'
    b'"type":"invalid_request_error","param":null,"code":"bad_http"}}'
)


def most_connections(open_files: int) -> int:
    """Give the bound on open connections.

    Args:
        open_files: how many descriptors the process may have.
    """
    return max(1, min(CONNECTIONS_AT_MOST, open_files // FILES_PER_CONNECTION))


class Crowd:
    """Whether one connection more may stay, told once per burst.  Owned by the event loop, shared by connections."""

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._is_told = False
        """Since the last connection was dropped, half of the places have not been free yet."""

    def admits(self, num_open: int) -> bool:
        """Answer for the connection that has just been opened.

        Args:
            num_open: open connections, this one included.
        """
        if num_open <= self._max_connections:
            self._is_told = self._is_told and num_open > self._max_connections // 2
            return True
        if not self._is_told:
            self._is_told = True
            LOG.warning("connections_full", max_connections=self._max_connections)
        return False


class GuardedH11Protocol(H11Protocol):
    """One connection.  The timer runs while a head is being waited for."""

    crowd: Crowd
    """All connections of the server; set by `guarded_protocol`."""
    write_deadline_s: float
    """A reader must take some of what was written to it within twice this time; set by `guarded_protocol`."""
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    """Runs while more waits for the reader than the transport likes to hold."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first head, or drop one too many: an answer would keep its descriptor for longer."""
        super().connection_made(transport)
        if self.crowd.admits(len(self.connections)):
            self._watch_head()
        else:
            transport.abort()

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


def guarded_protocol(write_deadline_s: float, max_connections: int) -> type[GuardedH11Protocol]:
    """Give the protocol class with its deadline and its bound: uvicorn makes the instances."""
    bounds = {"write_deadline_s": write_deadline_s, "crowd": Crowd(max_connections)}
    return type("GuardedH11Protocol", (GuardedH11Protocol,), bounds)
