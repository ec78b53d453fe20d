"""Where a copy goes and in which form, out of one line of an operator's settings.  Pure: nothing is opened here.

`FORMAT+TRANSPORT:...`, for example `cef+tcp://10.0.0.5:601` or `jsonl+file:///srv/siem/cloister.jsonl`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from audit.errors import AuditRefused
from audit.siem.cef import encode_cef
from audit.siem.exported import ExportedLeaf, LogName
from audit.siem.jsonl import encode_jsonl
from audit.siem.ocsf import encode_ocsf
from audit.siem.syslog import octet_counted, syslog_message

_SHAPE = "FORMAT+TRANSPORT, e.g. cef+tcp://10.0.0.5:601 or jsonl+file:///srv/siem/cloister.jsonl"


class Format(StrEnum):
    """Of one event."""

    CEF = "cef"
    JSONL = "jsonl"
    OCSF = "ocsf"


class Transport(StrEnum):
    """How events travel."""

    FILE = "file"
    TCP = "tcp"
    TLS = "tls"
    UDP = "udp"
    UNIX = "unix"


_ENCODERS = {Format.CEF: encode_cef, Format.JSONL: encode_jsonl, Format.OCSF: encode_ocsf}


@dataclass(frozen=True, slots=True)
class Destination:
    """One place that gets every leaf."""

    text: str
    """As the operator wrote it: its name in metrics, records and the cursor."""
    format: Format
    transport: Transport
    path: Path | None
    """Of a file or a Unix socket."""
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Read one line.

        Raises:
            AuditRefused: names what is wrong with it.
        """
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise AuditRefused(f"{text!r} is no destination: {error}", hint=_SHAPE) from error
        form, _, transport = parts.scheme.partition("+")
        if form not in list(Format) or transport not in list(Transport):
            raise AuditRefused(f"{text!r} names no format and transport that exist", hint=_SHAPE)
        if parts.query or parts.fragment or parts.username is not None or not text.isprintable():
            raise AuditRefused(f"{text!r} has parts that a destination has no use for", hint=_SHAPE)
        named = cls(text, Format(form), Transport(transport), None, parts.hostname or "", port or 0)
        return named._by_path(parts) if named.transport in (Transport.FILE, Transport.UNIX) else named._by_host(parts)

    @property
    def digest(self) -> str:
        """Name of the cursor's file: 16 hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def encode(self, exported: ExportedLeaf, name: LogName) -> bytes:
        """Give the bytes of one event as this destination takes them, framed."""
        event = _ENCODERS[self.format](exported, name)
        if self.transport is Transport.FILE:
            return event + b"\n"
        message = syslog_message(exported, name, event)
        return octet_counted(message) if self.transport in (Transport.TCP, Transport.TLS) else message

    def _by_path(self, parts: SplitResult) -> Destination:
        if parts.netloc or not parts.path.startswith("/") or parts.path.endswith("/"):
            raise AuditRefused(f"{self.text!r} needs an absolute path: three slashes", hint=_SHAPE)
        return Destination(self.text, self.format, self.transport, Path(parts.path), "", 0)

    def _by_host(self, parts: SplitResult) -> Destination:
        if not self.host or not self.port or parts.path not in ("", "/"):
            raise AuditRefused(f"{self.text!r} needs a host and a port, and no path", hint=_SHAPE)
        if self.transport is Transport.UDP and self.format is not Format.CEF:
            raise AuditRefused(
                f"{self.text!r}: a leaf has up to 65,535 bytes, which no datagram carries",
                hint="over UDP send cef, whose events are bounded; for the others use tcp",
            )
        return self
