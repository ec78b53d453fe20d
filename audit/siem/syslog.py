"""An RFC 5424 message around one event, and octet counting (RFC 6587, 3.4.1) for streams.  Pure.

Facility 13 (log audit).  MSGID is the event's kind, PROCID the log's epoch, which changes exactly where the sender was
started anew.  Structured data: `timeQuality`, where the leaf says whether the clock was synchronised.  Index and leaf
hash travel in the event itself: a name of our own in structured data would need a registered enterprise number.
"""

from __future__ import annotations

import datetime as dt

from audit.siem.exported import ExportedLeaf, LogName
from audit.siem.severity import severity_of

LOG_AUDIT = 13
APP_NAME = "cloister"
_NIL = "-"
_BOM = b"\xef\xbb\xbf"
_MAX_HOSTNAME, _MAX_PROCID, _MAX_MSGID = 255, 128, 32


def syslog_message(exported: ExportedLeaf, name: LogName, event: bytes) -> bytes:
    """Wrap one encoded event.  UTF-8 beyond ASCII is announced by a byte order mark, as the RFC demands."""
    leaf = exported.leaf
    priority = LOG_AUDIT * 8 + severity_of(leaf.event.kind).syslog
    at = dt.datetime.fromtimestamp(0, tz=dt.UTC) + dt.timedelta(microseconds=leaf.event.ts_us)
    head = " ".join(
        (
            f"<{priority}>1",
            at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            _printable(name.origin, _MAX_HOSTNAME),
            APP_NAME,
            _printable(str(leaf.place.epoch), _MAX_PROCID),
            _printable(leaf.event.kind, _MAX_MSGID),
            _time_quality(exported.text_fact("clock_state")),
        )
    )
    mark = b"" if event.isascii() else _BOM
    return head.encode() + b" " + mark + event


def octet_counted(message: bytes) -> bytes:
    """Frame a message for a stream: its length in decimal, a space, the message."""
    return b"%d %b" % (len(message), message)


def _time_quality(clock_state: str | None) -> str:
    if clock_state not in ("synchronised", "unsynchronised"):
        return _NIL
    return f'[timeQuality tzKnown="1" isSynced="{int(clock_state == "synchronised")}"]'


def _printable(text: str, max_len: int) -> str:
    """Keep the RFC's PRINTUSASCII; what is not becomes `_`, and nothing at all becomes the nil value."""
    kept = "".join(character if "!" <= character <= "~" else "_" for character in text[:max_len])
    return kept or _NIL
