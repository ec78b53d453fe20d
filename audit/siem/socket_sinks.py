"""Syslog messages to a Unix socket, by UDP, or with octet counting by TCP and by TLS over it (RFC 5425).

Taken means what each transport can know.  Unix: the receiver's queue on this machine has it.  UDP: this machine sent
it; whether it arrived nobody is told.  TCP: the receiver's machine has acknowledged every byte (the kernel's queue of
unacknowledged bytes is empty), with TLS after it proved its name by a certificate; whether its program read them is not
told either, as syslog has no answers.  Gaps that
come of that are found by `audit.siem.copy_check`.

Each batch has one deadline; a receiver that accepts and never reads costs that long and no more.
"""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from audit.siem.sink import SinkFailed

_SIOCOUTQ = 0x5411
"""Linux: bytes that were written and not acknowledged yet."""
_LONGEST_WAIT_S = 0.05


class TcpSink:
    """One connection, made when needed and again after a failure."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        deadline_s: float,
        tls: ssl.SSLContext | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is opened.

        Args:
            host: name or address of the receiver; with TLS its certificate must name it.
            port: of the receiver.
            deadline_s: for one batch, from the connection to the acknowledgement.
            tls: speak TLS, believing whom this context believes; None: plain TCP.
            monotonic: seconds.
        """
        self._tls = tls
        self._address = (host, port)
        self._deadline_s = deadline_s
        self._monotonic = monotonic
        self._socket: socket.socket | None = None

    def take(self, events: Sequence[bytes]) -> None:
        """See `audit.siem.sink.Sink.take`."""
        deadline = self._monotonic() + self._deadline_s
        try:
            connection = self._connected(deadline)
            connection.settimeout(self._left(deadline))
            connection.sendall(b"".join(events))
            self._await_acknowledgement(connection, deadline)
        except OSError as failure:
            self.close()
            raise SinkFailed(_said(self._address, failure)) from failure
        except SinkFailed:
            self.close()
            raise

    def close(self) -> None:
        """Drop the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self, deadline: float) -> socket.socket:
        if self._socket is not None and _has_hung_up(self._socket, 0):
            self.close()
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=self._left(deadline))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._tls is not None:
                self._socket.settimeout(self._left(deadline))
                self._socket = self._tls.wrap_socket(self._socket, server_hostname=self._address[0])
        return self._socket

    def _await_acknowledgement(self, connection: socket.socket, deadline: float) -> None:
        """Wait until the other machine has every byte; the kernel tells when asked, and of a hang-up by itself."""
        wait_s = 0.001
        while True:
            if _has_hung_up(connection, 0):
                raise SinkFailed(f"{_shown(self._address)}: hung up before it had everything")
            if not _num_unacknowledged(connection):
                break
            _has_hung_up(connection, min(wait_s, self._left(deadline)))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        if _has_hung_up(connection, 0):  # a reset empties the queue too
            raise SinkFailed(f"{_shown(self._address)}: hung up before it had everything")

    def _left(self, deadline: float) -> float:
        left = deadline - self._monotonic()
        if left <= 0:
            raise SinkFailed(f"{_shown(self._address)}: did not take the events in {self._deadline_s} s")
        return left


class DatagramSink:
    """One message per datagram, to a Unix socket or by UDP."""

    def __init__(
        self, address: Path | tuple[str, int], *, deadline_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._address = address
        self._deadline_s = deadline_s
        self._monotonic = monotonic
        self._socket: socket.socket | None = None

    def take(self, events: Sequence[bytes]) -> None:
        """See `audit.siem.sink.Sink.take`."""
        deadline = self._monotonic() + self._deadline_s
        try:
            channel = self._connected()
            for event in events:
                left = deadline - self._monotonic()
                if left <= 0:
                    raise TimeoutError
                channel.settimeout(left)
                channel.send(event)
        except OSError as failure:
            self.close()
            raise SinkFailed(_said(self._address, failure)) from failure

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        if isinstance(self._address, Path):
            family: int = socket.AF_UNIX
            target: str | tuple[str, int] = str(self._address)
        else:
            [(family, _, _, _, found), *_] = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)
            target = (str(found[0]), int(found[1]))
        channel = socket.socket(family, socket.SOCK_DGRAM)
        try:
            channel.connect(target)
        except BaseException:
            channel.close()
            raise
        self._socket = channel
        return channel


def _num_unacknowledged(connection: socket.socket) -> int:
    (num_bytes,) = struct.unpack("i", fcntl.ioctl(connection, _SIOCOUTQ, bytes(4)))
    return int(num_bytes)


def _has_hung_up(connection: socket.socket, wait_s: float) -> bool:
    """Tell a connection that the other end has closed or reset: bytes written into it would vanish without an error."""
    poller = select.poll()
    poller.register(connection, select.POLLRDHUP)
    return bool(poller.poll(wait_s * 1_000))


def _shown(address: Path | tuple[str, int]) -> str:
    return str(address) if isinstance(address, Path) else f"{address[0]}:{address[1]}"


def _said(address: Path | tuple[str, int], failure: OSError) -> str:
    reason = "took too long" if isinstance(failure, TimeoutError) else failure.strerror or type(failure).__name__
    return f"{_shown(address)}: {reason}"
