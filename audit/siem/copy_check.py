"""Hold a SIEM's copy against the log: what is missing in it, what differs, what is no event.

Memory grows with the number of gaps, not with the length of the copy.  What is compared is what each event says of
itself, index and leaf hash, and the content where the format holds the whole leaf; that the log itself is sound is
`audit.verify`'s to say.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import BinaryIO

from audit.reader import AuditReader
from audit.siem.copy_lines import MAX_LINE_BYTES, CopiedEvent, NotAnEvent, read_line

MAX_NAMED = 100
_CHUNK_LEN = 500


@dataclass(frozen=True, slots=True)
class CopyFault:
    """One line that does not stand for a leaf of this log."""

    file: str
    line: int
    what: str


@dataclass(frozen=True, slots=True)
class CopyReport:
    """The verdict over one copy."""

    num_lines: int
    num_matching: int
    """Lines that stand for a leaf of the log."""
    num_pruned: int
    """Lines whose leaf the log gave up since, by a recorded act: the copy has it, and nothing here can say more."""
    num_repeated: int
    """Those of both whose leaf had come before: a crash sends again, that is no fault."""
    faults: tuple[CopyFault, ...]
    faults_left_out: int
    gaps: tuple[tuple[int, int], ...]
    """First and last index, both included, of what is missing between `from_index` and the last matching leaf."""
    gaps_left_out: int
    num_missing: int
    from_index: int | None
    last_index: int | None
    num_behind: int
    """Leaves of the log after the last one that the copy has: not sent yet, or cut off."""

    @property
    def ok(self) -> bool:
        """Something is there, nothing is missing between its ends, and nothing differs."""
        return self.num_matching > 0 and not self.faults and not self.gaps


@dataclass(slots=True)
class IndexRanges:
    """A set of indexes as disjoint ranges, ascending."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Exclusive."""

    def add(self, index: int) -> bool:
        """Add one; False when it was there."""
        at = bisect_right(self.starts, index)
        if at and index < self.ends[at - 1]:
            return False
        joins_left = at > 0 and self.ends[at - 1] == index
        joins_right = at < len(self.starts) and self.starts[at] == index + 1
        if joins_left and joins_right:
            self.ends[at - 1] = self.ends.pop(at)
            self.starts.pop(at)
        elif joins_left:
            self.ends[at - 1] = index + 1
        elif joins_right:
            self.starts[at] = index
        else:
            self.starts.insert(at, index)
            self.ends.insert(at, index + 1)
        return True

    def gaps(self, from_index: int) -> Iterator[tuple[int, int]]:
        """Give the ranges that are missing from `from_index` up to the last index, both ends included."""
        at = from_index
        for start, end in zip(self.starts, self.ends, strict=True):
            if start > at:
                yield at, start - 1
            at = max(at, end)


def check_copy(
    files: Sequence[tuple[str, BinaryIO]], reader: AuditReader, *, from_index: int | None = None
) -> CopyReport:
    """Check the lines of these files, in any order, against the log.

    Args:
        files: names and open files.
        reader: of the log.
        from_index: the first leaf that the copy must have; default: the first that it has.
    """
    checking = _Checking(reader)
    for name, file in files:
        for lines in _chunks(_numbered(file)):
            checking.take(name, lines)
    return checking.report(from_index)


class _Checking:
    def __init__(self, reader: AuditReader) -> None:
        self._reader = reader
        self._seen = IndexRanges()
        self._num_lines = 0
        self._floor = reader.floors().leaf
        self._num_matching = 0
        self._num_pruned = 0
        self._num_repeated = 0
        self._faults: list[CopyFault] = []
        self._faults_left_out = 0

    def take(self, name: str, lines: Sequence[tuple[int, bytes]]) -> None:
        events: list[tuple[int, CopiedEvent]] = []
        self._num_lines += len(lines)
        for number, line in lines:
            try:
                events.append((number, read_line(line)))
            except NotAnEvent as refusal:
                self._add_fault(name, number, str(refusal))
        hashes = self._reader.leaf_hashes([event.index for _, event in events])
        for number, event in events:
            fault = (_differing(event, hashes) if event.index >= self._floor else None) or _altered(event)
            if fault is not None:
                self._add_fault(name, number, fault)
                continue
            self._num_matching += event.index >= self._floor
            self._num_pruned += event.index < self._floor
            self._num_repeated += not self._seen.add(event.index)

    def report(self, from_index: int | None) -> CopyReport:
        seen = self._seen
        first = from_index if from_index is not None else seen.starts[0] if seen.starts else None
        last = seen.ends[-1] - 1 if seen.ends else None
        gaps = [] if first is None else list(seen.gaps(first))
        head_size = self._reader.head().checkpoint.size
        sent_up_to = (first or 0) if last is None else max(last + 1, first or 0)
        return CopyReport(
            num_lines=self._num_lines,
            num_matching=self._num_matching,
            num_pruned=self._num_pruned,
            num_repeated=self._num_repeated,
            faults=tuple(self._faults),
            faults_left_out=self._faults_left_out,
            gaps=tuple(gaps[:MAX_NAMED]),
            gaps_left_out=max(0, len(gaps) - MAX_NAMED),
            num_missing=sum(end - start + 1 for start, end in gaps),
            from_index=first,
            last_index=last,
            num_behind=max(0, head_size - sent_up_to),
        )

    def _add_fault(self, file: str, line: int, what: str) -> None:
        if len(self._faults) < MAX_NAMED:
            self._faults.append(CopyFault(file, line, what))
        else:
            self._faults_left_out += 1


def _altered(event: CopiedEvent) -> str | None:
    if event.content_hash is not None and event.content_hash != event.leaf_hash:
        return f"entry {event.index} was altered: its content does not have the hash that stands beside it"
    return None


def _differing(event: CopiedEvent, hashes: Mapping[int, bytes]) -> str | None:
    stored = hashes.get(event.index)
    if stored is None:
        return f"entry {event.index} is not in the log"
    if stored.hex() != event.leaf_hash:
        return f"entry {event.index} has another leaf hash in the log"
    return None


def _numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Give the lines that are not empty, each up to one byte more than any may have."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 2):
        number += 1
        whole = line
        while whole and not whole.endswith(b"\n"):  # too long, or the last one: its rest is not kept
            whole = file.readline(MAX_LINE_BYTES)
        if line.strip():
            yield number, line.rstrip(b"\r\n")


def _chunks(lines: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    remaining = iter(lines)
    while chunk := list(islice(remaining, _CHUNK_LEN)):
        yield chunk
