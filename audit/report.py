"""What a verification found, exactly where."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Place(Enum):
    """The kind of place a finding points at."""

    LEAF_BYTES = "leaf bytes"
    LEAF_HASH = "leaf hash"
    LEAF_ROW = "leaf row"
    """A leaf is missing, repeated, moved, or beyond the signed head."""
    COLUMN = "projected column"
    NODE = "tree node"
    BESIDE = "beside an entry"
    """A policy id, or a floor, that the entry does not speak of, or one that it does and that is not there."""
    CONTENT = "sealed content"
    CHECKPOINT_ROW = "checkpoint row"
    CHECKPOINT_ROOT = "checkpoint root"
    CHECKPOINT_SIGNATURE = "checkpoint signature"
    TRUNCATED = "log end"
    """A newer checkpoint is known than the log has leaves for."""
    FORK = "history"
    """A checkpoint is known that this log never had."""
    WITNESS = "witness"
    """Fewer witnesses than were asked for cosigned any known checkpoint."""
    STATE = "request state"
    CLOCK = "clock"
    SCHEMA = "schema"
    DATABASE = "database file"
    TILE = "hash tile"
    ENTRY_BUNDLE = "entry bundle"
    FILE = "file"
    SEAL = "seal"
    """The index of an evidence pack, and the entry that holds its digest."""
    RECORDS = "records"
    """An evidence pack's view of an entry, as a line, a row or typed columns."""
    ENTRY_PROOF = "entry proof"


_SHOWN_CHARS = 80


def shown(value: object) -> str:
    """Give a stored value of whatever kind a short form to name it by."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}... ({len(text)} characters)"


def printable(text: str) -> str:
    """Escape what would end the line or steer a terminal: an altered log must not write its own verdict there."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


@dataclass(frozen=True, slots=True)
class Finding:
    """One contradiction."""

    place: Place
    index: int | None
    """Entry index, or tree size for a checkpoint; None where the place has no number."""
    where: str
    """Column, node coordinates or file name; empty where the index says it all."""
    what: str

    def __str__(self) -> str:
        """One line for a terminal."""
        number = "" if self.index is None else f" {self.index}"
        where = f" ({self.where})" if self.where else ""
        return printable(f"{self.place.value}{number}{where}: {self.what}")


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict over one log."""

    source: str
    num_leaves: int
    num_checkpoints: int
    head_size: int | None
    head_root: str | None
    findings: tuple[Finding, ...]
    findings_left_out: int
    """Findings beyond the first `MAX_FINDINGS`."""
    unfinished: tuple[tuple[str, int], ...]
    """`(subject, index)` of what was opened and has no end yet."""
    notes: tuple[str, ...]
    """Worth knowing, not wrong: a clock that went back between two runs, signatures by unknown keys, no known head."""

    @property
    def ok(self) -> bool:
        """True when nothing contradicts anything."""
        return not self.findings


MAX_FINDINGS = 1_000


@dataclass(slots=True)
class FindingList:
    """Collects findings; the same place is named once."""

    findings: list[Finding] = field(default_factory=list)
    left_out: int = 0
    _seen: set[tuple[Place, int | None, str]] = field(default_factory=set)

    def add(self, place: Place, index: int | None, what: str, where: str = "") -> None:
        """Add one, unless that place was named before."""
        key = (place, index, where)
        if key in self._seen:
            return
        if len(self.findings) >= MAX_FINDINGS:
            self.left_out += 1
            return
        self._seen.add(key)
        self.findings.append(Finding(place, index, where, what))
