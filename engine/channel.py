"""The service's end of the socket pair: typed messages, never blocking the event loop.

Invariants: messages are given out in the order they were sent; everything the peer managed to send before it died is
given out before `on_closed`; `on_closed` is called exactly once.  Sending to a dead peer is no error, its death is
reported by reading.  All methods and callbacks belong to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from engine.wire import FrameReader, FromWorker, MalformedFrame, decode_from_worker

_READ_BYTES = 256 * 1024


class Channel:
    """Takes the socket over; `close` gives it back to the system."""

    def __init__(
        self, sock: socket.socket, *, on_message: Callable[[FromWorker], None], on_closed: Callable[[bool], None]
    ) -> None:
        """Begin to read.

        Args:
            sock: connected; becomes non-blocking.
            on_message: called for each message.
            on_closed: called once, with whether the peer broke the protocol.
        """
        sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._on_message = on_message
        self._on_closed = on_closed
        self._reader = FrameReader()
        self._unsent = bytearray()
        """Bytes the socket did not take yet; a writer is registered exactly while there are any."""
        self._is_closed = False
        self._loop.add_reader(sock, self._read)

    def send(self, frame: bytearray) -> None:
        """Send a frame, which is ours from now on, in order and as soon as the socket takes it."""
        if self._is_closed:
            return
        if self._unsent:
            self._unsent += frame
            return
        self._unsent = frame
        self._write()
        if self._unsent:
            self._loop.add_writer(self._sock, self._write)

    def close(self) -> None:
        """Stop reading and writing; the peer sees the end of the stream."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()

    def _write(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            sent = len(self._unsent)  # nobody will read it; what the peer had sent before is still to be read
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._sock)

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._end(broke_protocol=False)  # half a frame at the end is what a kill leaves
            return
        try:
            for payload in self._reader.feed(data):
                self._on_message(decode_from_worker(payload))
                if self._is_closed:
                    return
        except MalformedFrame:
            self._end(broke_protocol=True)

    def _end(self, *, broke_protocol: bool) -> None:
        self.close()
        self._on_closed(broke_protocol)
