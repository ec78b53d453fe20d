"""How far a destination has come: one small file, replaced whole and flushed at each move.

It names the log, the destination and the hash of the last leaf that was taken.  So a cursor is never used on another
log, and a log that was cut or rolled back behind it is noticed rather than copied on.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from audit.errors import AuditRefused

_MEMBERS = {"v": int, "destination": str, "log": str, "next_index": int, "last_leaf_hash": str}
_VERSION = 1
_REMEDY = "to copy the whole log again, remove the file while the appliance is stopped"


@dataclass(frozen=True, slots=True)
class Cursor:
    """The next leaf to send, and the hash of the one before it."""

    next_index: int
    last_leaf_hash: str
    """Empty before the first."""


class CursorFile:
    """Owned by one thread."""

    def __init__(self, path: Path, *, destination: str, log: str) -> None:
        self._path = path
        self._destination = destination
        self._log = log

    def load(self) -> Cursor | None:
        """Give the stored cursor, or None where none was stored yet.

        Raises:
            AuditRefused: the file is not a cursor of this destination and log.
            OSError: it cannot be read.
        """
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            found = json.loads(text)
        except ValueError as error:
            raise AuditRefused(f"{self._path} is no cursor", hint=_REMEDY) from error
        if (
            not isinstance(found, dict)
            or found.keys() != _MEMBERS.keys()
            or any(type(found[name]) is not kind for name, kind in _MEMBERS.items())
            or found["v"] != _VERSION
            or found["next_index"] < 0
        ):
            raise AuditRefused(f"{self._path} is no cursor", hint=_REMEDY)
        if (found["destination"], found["log"]) != (self._destination, self._log):
            raise AuditRefused(f"{self._path} is the cursor of another destination or log", hint=_REMEDY)
        return Cursor(found["next_index"], found["last_leaf_hash"])

    def move(self, cursor: Cursor) -> None:
        """Store durably.  Raises OSError; then the old one stands, or the new one does."""
        stored = {
            "v": _VERSION,
            "destination": self._destination,
            "log": self._log,
            "next_index": cursor.next_index,
            "last_leaf_hash": cursor.last_leaf_hash,
        }
        draft = self._path.with_name(f"{self._path.name}.new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:  # which writes all of it or raises, also on a disk that fills up
            file.write(json.dumps(stored).encode())
            file.flush()
            os.fsync(descriptor)
        draft.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
