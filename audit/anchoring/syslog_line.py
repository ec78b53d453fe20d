"""A head as one line of RFC 5424, and every head out of lines that a collector kept.

Pure.  The structured data has origin, size, root and the whole signed note; the message has the note once more, because
many collectors write the message alone to their files.  Both are base64, so that no newline of a note ends a line.

    <109>1 2026-11-24T13:00:00.000000Z host cloister 4711 anchor [anchor@32473 origin="..." size="..." root="..."
    note="BASE64"] head of 42 entries, note=BASE64
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from collections.abc import Iterator

from audit.anchoring.head import SignedHead

_PRIORITY = 13 * 8 + 5
"""Facility "log audit", severity "notice"."""
_STRUCTURE = "anchor@32473"
"""The enterprise number that RFC 5612 sets aside for examples: we have no number of our own."""
_NOTE = re.compile(r"\bnote=\"?([A-Za-z0-9+/]{40,}={0,2})")


def syslog_message(head: SignedHead, now: dt.datetime, host: str, process_id: int) -> bytes:
    """Write the line, without any framing."""
    checkpoint = head.checkpoint
    note = base64.b64encode(head.note.encode()).decode()
    root = base64.b64encode(checkpoint.root).decode()
    at = now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    fields = f'origin="{_escaped(checkpoint.origin)}" size="{checkpoint.size}" root="{root}" note="{note}"'
    message = f"head of {checkpoint.size} entries, note={note}"
    header = f"<{_PRIORITY}>1 {at} {_printable(host)} cloister {process_id} anchor"
    return f"{header} [{_STRUCTURE} {fields}] {message}".encode()


def notes_in(text: str) -> Iterator[str]:
    """Yield what could be a signed note in captured lines, however the collector wrote them; verifies nothing."""
    seen: set[str] = set()
    for found in _NOTE.finditer(text):
        if found[1] in seen:
            continue
        seen.add(found[1])
        try:
            yield base64.b64decode(found[1], validate=True).decode()
        except (binascii.Error, ValueError):
            continue  # a line that was cut, or that somebody else wrote: it is evidence of nothing


def _escaped(value: str) -> str:
    return re.sub(r'(["\\\]])', r"\\\1", value)


def _printable(host: str) -> str:
    name = "".join(character for character in host if "!" <= character <= "~")
    return name[:255] or "-"
