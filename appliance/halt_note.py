"""Why the log of the last run stopped for good, kept beside the log until the next run records it.

A halted log cannot record its own halt.  The file is made and given its space at the start, so that it can be written
on a full disk; writing it is a best effort all the same, as the disk itself may be what failed.  Laws: a note is taken
away only after it stands in the log; what is not a note of ours is left alone and said.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from appliance.audit_trail import SYSTEM, AuditTrail, Kind
from audit.reader import EntryFilter

if TYPE_CHECKING:
    from audit.event import JsonValue
    from audit.reader import AuditReader

LOG = structlog.get_logger("cloister.log")

NOTE_BYTES = 4096
_MAX_REASON = 512
_LATEST_US = 2**53


@dataclass(frozen=True, slots=True)
class Halt:
    """One halt."""

    reason: str
    at_us: int
    """UTC, by the clock of then, which may be what was wrong."""


class HaltNote:
    """The one file; used by whichever thread halts, and by the start."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def prepare(self) -> None:
        """Make the file and take its space.  Raises OSError."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(descriptor).st_size < NOTE_BYTES:
                os.pwrite(descriptor, b" " * NOTE_BYTES, 0)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write(self, halt: Halt) -> None:
        """Write over the space that is there.  Raises OSError: then the reason stands in the operator's log alone."""
        text = json.dumps({**asdict(halt), "reason": halt.reason[:_MAX_REASON]}).encode()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.pwrite(descriptor, text.ljust(NOTE_BYTES), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self) -> Halt | None:
        """Give the note of the last run; None where it ended otherwise.  Raises ValueError: it is not one of ours."""
        try:
            with self._path.open("rb") as file:
                text = file.read(NOTE_BYTES).strip()
        except FileNotFoundError:
            return None
        if not text:
            return None
        found = json.loads(text)
        if not isinstance(found, dict) or found.keys() != Halt.__annotations__.keys():
            raise ValueError("it does not have the members of a halt")
        reason, at_us = found["reason"], found["at_us"]
        if not isinstance(reason, str) or type(at_us) is not int or not 0 <= at_us < _LATEST_US:
            raise ValueError("its members are not those of a halt")
        return Halt(reason, at_us)

    def clear(self) -> None:
        """Take the note away: it stands in the log.  Raises OSError."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.pwrite(descriptor, b" " * NOTE_BYTES, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


async def record_last_halt(note: HaltNote, trail: AuditTrail, reader: AuditReader, *, epoch: int, size: int) -> None:
    """Record the halt of the last run, if it halted, and take its note away; then make room for the next one.

    Args:
        note: beside the log.
        trail: of the new run.
        reader: of the log.
        epoch: of the new run; the last one had the number before.
        size: of the tree that the last run left.
    """
    try:
        halt = note.read()
        if halt is not None:
            facts: dict[str, JsonValue] = {
                "reason": halt.reason,
                "halted_at_us": halt.at_us,
                "halted_epoch": epoch - 1,
                "tree_size": size,
            }
            if not _is_recorded(reader, halt):
                await trail.append(Kind.LOG_HALTED, SYSTEM, "log", facts)
            note.clear()
        note.prepare()
    except (OSError, ValueError) as failure:
        LOG.warning("halt_note_unusable", error=type(failure).__name__, reason=str(failure))


def _is_recorded(reader: AuditReader, halt: Halt) -> bool:
    """Tell whether a start that died before it could take the note away had recorded it."""
    newest = reader.entries(EntryFilter(kind=Kind.LOG_HALTED.value), limit=1, newest=True).entries
    if not newest:
        return False
    facts = newest[0].leaf.event.facts
    return (facts.get("reason"), facts.get("halted_at_us")) == (halt.reason, halt.at_us)
