"""A head as a syslog line to an address that the operator configured.

    unix:/dev/log         the machine's own syslog daemon: a datagram, or a stream where the socket is one
    udp:HOST:PORT         RFC 5426: one datagram, and nobody says whether it came
    tcp:HOST:PORT         RFC 6587, octet counting: the line, then our end closed; the collector closes its own when it
                          has read everything, and only then was the line taken

Promise: every wait ends at the deadline.  What a collector then does with a line, only the collector can say.
"""

from __future__ import annotations

import datetime as dt
import errno
import os
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

from audit.anchoring.head import SignedHead
from audit.anchoring.sink import Anchored, left_s
from audit.anchoring.syslog_line import syslog_message
from audit.errors import AnchorFailed

Transport: TypeAlias = Literal["unix", "udp", "tcp"]
_MAX_PORT = 65_535
_ANSWER_BYTES = 4_096
_FORMS = "unix:/PATH, udp:HOST:PORT or tcp:HOST:PORT (an IPv6 address in brackets)"


@dataclass(frozen=True, slots=True)
class SyslogAddress:
    """Where a collector listens."""

    transport: Transport
    host: str
    """A path for `unix`."""
    port: int = 0

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse the operator's form.

        Raises:
            ValueError: says which forms there are.
        """
        kind, _, rest = text.partition(":")
        if kind == "unix" and rest.startswith("/"):
            return cls("unix", rest)
        host, _, port = rest.rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        is_port = port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT
        if not bare or not is_port or (":" in bare and f"[{bare}]" != host):
            raise ValueError(f"an address of a syslog collector is {_FORMS}")
        match kind:
            case "udp" | "tcp":
                return cls(kind, bare, int(port))
        raise ValueError(f"an address of a syslog collector is {_FORMS}")

    def __str__(self) -> str:
        """The operator's form."""
        if self.transport == "unix":
            return f"unix:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}:{host}:{self.port}"


def utc_now() -> dt.datetime:
    """Give the machine's time."""
    return dt.datetime.now(dt.UTC)


class SyslogSink:
    """One collector; a connection is made for each line and closed after it."""

    def __init__(self, address: SyslogAddress, *, now: Callable[[], dt.datetime] = utc_now) -> None:
        self._address = address
        self._now = now

    @property
    def name(self) -> str:
        """By the address."""
        return f"syslog:{self._address}"

    def anchor(self, head: SignedHead, deadline_at: float) -> Anchored:
        """Send the line."""
        line = syslog_message(head, self._now(), socket.gethostname(), os.getpid())
        try:
            self._send(line, deadline_at)
        except TimeoutError as error:
            raise AnchorFailed(f"{self._address} did not take the line within the deadline") from error
        except OSError as error:
            raise AnchorFailed(f"{self._address}: {error.strerror or error}", hint="does the collector run?") from error
        return Anchored(head.checkpoint.size)

    def _send(self, line: bytes, deadline_at: float) -> None:
        match self._address.transport:
            case "unix":
                self._send_to_unix_socket(line, deadline_at)
            case "udp":
                self._send_datagram(line, deadline_at)
            case "tcp":
                address = (self._address.host, self._address.port)
                with closing(socket.create_connection(address, left_s(deadline_at))) as stream:
                    _deliver(stream, f"{len(line)} ".encode() + line, deadline_at)

    def _send_to_unix_socket(self, line: bytes, deadline_at: float) -> None:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as datagrams:
            datagrams.settimeout(left_s(deadline_at))
            try:
                datagrams.connect(self._address.host)
            except OSError as error:
                if error.errno != errno.EPROTOTYPE:
                    raise
            else:
                datagrams.send(line)
                return
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as stream:
            stream.settimeout(left_s(deadline_at))
            stream.connect(self._address.host)
            _deliver(stream, line + b"\n", deadline_at)

    def _send_datagram(self, line: bytes, deadline_at: float) -> None:
        found = socket.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        with closing(socket.socket(family, kind, protocol)) as datagrams:
            datagrams.settimeout(left_s(deadline_at))
            datagrams.connect(address)
            datagrams.send(line)


def _deliver(stream: socket.socket, framed: bytes, deadline_at: float) -> None:
    """Send all, close our end, and wait until the other end was closed too: it has read what we sent."""
    view = memoryview(framed)
    while view:
        stream.settimeout(left_s(deadline_at))
        view = view[stream.send(view) :]
    stream.shutdown(socket.SHUT_WR)
    while True:
        stream.settimeout(left_s(deadline_at))
        if not stream.recv(_ANSWER_BYTES):
            return
