"""The engine process's end of the socket pair: blocking, for the one thread that the process has."""

from __future__ import annotations

import socket

from engine.wire import FrameReader, FromWorker, ToWorker, decode_to_worker, encode_frame

_READ_BYTES = 256 * 1024


class ServiceGone(Exception):
    """The other end of the socket is closed: there is nobody to work for."""


class ServiceLink:
    """The worker's end of the socket pair; blocking, for the one thread there is."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = FrameReader()
        self._arrived: list[ToWorker] = []

    def send(self, message: FromWorker) -> None:
        """Send whole; waits while the service's socket is full.

        Raises:
            ServiceGone: nobody reads any more.
        """
        try:
            self._sock.settimeout(None)
            self._sock.sendall(encode_frame(message))
        except OSError:
            raise ServiceGone from None

    def receive(self, timeout_s: float | None) -> list[ToWorker]:
        """Give everything that has arrived; when that is nothing, wait for something.

        Args:
            timeout_s: None waits for ever, 0 not at all.

        Raises:
            ServiceGone: the stream has ended.
            MalformedFrame: not our service.
        """
        messages: list[ToWorker] = []
        while True:
            self._sock.settimeout(0 if messages else timeout_s)
            try:
                data = self._sock.recv(_READ_BYTES)
            except (TimeoutError, BlockingIOError):
                return messages
            except OSError:
                raise ServiceGone from None
            if not data:
                raise ServiceGone
            messages.extend(decode_to_worker(payload) for payload in self._reader.feed(data))
