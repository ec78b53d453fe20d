"""One POST with one deadline for all of it, to an address that the operator configured.

Promise: no proxy of the environment, no redirect, no second try; an answer longer than asked for is refused; whatever
the other side does - accepts and says nothing, sends a byte a second - the call ends at the deadline.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Timer
from typing import Self
from urllib.parse import urlsplit

from audit.anchoring.sink import left_s
from audit.errors import AnchorFailed

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """A scheme, a host, a port and the path in front of every call."""

    scheme: str
    host: str
    port: int
    prefix: str

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Parse a submission prefix.

        Raises:
            ValueError: says what is wrong.
        """
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError("an address begins with http:// or https:// and a host")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("an address has no user, query or fragment; the key stands in a file of its own")
        port = parts.port if parts.port is not None else _DEFAULT_PORTS[parts.scheme]
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    media_type: str
    body: bytes


def post(
    address: HttpAddress,
    path: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    deadline_at: float,
    max_answer_bytes: int,
    ca_file: Path | None = None,
) -> Answer:
    """Send and wait.

    Raises:
        AnchorFailed: no whole answer within the deadline.
    """
    where = f"{address.scheme}://{address.host}:{address.port}"
    try:
        with closing(socket.create_connection((address.host, address.port), left_s(deadline_at))) as raw:
            return _exchange(raw, address, path, body, headers, deadline_at, max_answer_bytes, ca_file)
    except AnchorFailed:
        raise
    except (OSError, HTTPException) as error:
        if time.monotonic() >= deadline_at:
            raise AnchorFailed(f"{where} gave no answer within the deadline") from error
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise AnchorFailed(f"{where}: {said}", hint="is the witness reachable?") from error


def _exchange(
    raw: socket.socket,
    address: HttpAddress,
    path: str,
    body: bytes,
    headers: Mapping[str, str],
    deadline_at: float,
    max_answer_bytes: int,
    ca_file: Path | None,
) -> Answer:
    stream = raw
    if address.scheme == "https":
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        stream = context.wrap_socket(raw, server_hostname=address.host, do_handshake_on_connect=False)
    with closing(stream), _cut_at(stream, deadline_at):
        if isinstance(stream, ssl.SSLSocket):
            stream.do_handshake()
        connection = HTTPConnection(address.host, address.port)
        connection.sock = stream
        connection.request("POST", address.prefix + path, body, dict(headers))
        with connection.getresponse() as response:
            content = response.read(max_answer_bytes + 1)
            media_type = (response.getheader("content-type") or "").partition(";")[0].strip().lower()
            status = response.status
    if len(content) > max_answer_bytes:
        raise AnchorFailed(f"{address.host} answered {status} with more than {max_answer_bytes} bytes")
    left_s(deadline_at)  # an answer that was cut at the deadline is none
    return Answer(status, media_type, content)


@contextmanager
def _cut_at(stream: socket.socket, deadline_at: float) -> Iterator[None]:
    """Shut the connection down at the deadline, whatever waits on it: a timeout per read would begin anew each byte."""

    def cut() -> None:
        with suppress(OSError):  # it ended by itself just now
            socket.socket.shutdown(stream, socket.SHUT_RDWR)

    stream.settimeout(left_s(deadline_at))
    timer = Timer(left_s(deadline_at), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
