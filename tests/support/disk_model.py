"""What a disk still holds after the power went: a trace replayed into files, names, and what was never flushed.

The model promises a program as little as POSIX does: written data is durable after a flush of its file, a name after a
flush of its folder, and until then any part of it, in pieces of one sector, in any order, may be there or not.  After
a failed flush the data that waited is gone for good, even if a later flush succeeds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from faulty_disk import Op, Record

SECTOR_BYTES = 512
_REBUILT = "-shm"
"""An index in shared memory that every first opening makes anew."""


@dataclass(slots=True)
class _File:
    current: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unflushed: list[Record] = field(default_factory=list)


Image = dict[str, bytes]
"""File name -> content."""


class DiskModel:
    """One folder; `apply` the calls in their order."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._names: dict[str, _File] = {}
        self._durable_names: dict[str, _File] = {}
        self._lost_names: set[str] = set()
        """Changed before a flush of the folder that failed, and not since."""

    def apply(self, record: Record) -> None:
        """Let one call happen; one that failed changes nothing but the fate of what it was to flush."""
        if record.op is Op.SYNC:
            self._flush(record)
        elif not record.was_done or record.op is Op.MARK:
            return
        elif record.op is Op.CREATE:
            self._set_name(record.name, _File())
        elif record.op is Op.UNLINK:
            self._set_name(record.name, None)
        elif record.op is Op.LINK:
            origin, name = record.name.split("\n")
            self._set_name(name, self._names[origin])
        else:
            file = self._names[record.name]
            _carry_out(file.current, record.op, record.offset, record.data)
            file.unflushed.append(record)

    def after_kill(self) -> Image:
        """What is there when only the process ended."""
        return {Path(n).name: bytes(f.current) for n, f in self._names.items() if not n.endswith(_REBUILT)}

    def after_power_cut(self) -> Iterator[Image]:
        """What is there when nothing was written that was not flushed, with either set of names."""
        for names in (self._names, self._durable_names):
            yield {Path(n).name: bytes(f.durable) for n, f in names.items() if not n.endswith(_REBUILT)}

    def after_torn_power_cut(self, draw: random.Random) -> Image:
        """What may be there when some sectors of what was not flushed reached the disk and others did not."""
        names = draw.choice((self._names, self._durable_names))
        return {Path(n).name: _torn(f, draw) for n, f in names.items() if not n.endswith(_REBUILT)}

    def _flush(self, record: Record) -> None:
        if record.name == self._folder:
            self._flush_names(done=record.was_done)
            return
        file = self._names[record.name]
        if record.was_done:
            for waiting in file.unflushed:
                _carry_out(file.durable, waiting.op, waiting.offset, waiting.data)
        file.unflushed.clear()

    def _flush_names(self, *, done: bool) -> None:
        changed = {n for n in self._names | self._durable_names if self._names.get(n) is not self._durable_names.get(n)}
        if not done:
            self._lost_names |= changed
            return
        for name in changed - self._lost_names:
            if name in self._names:
                self._durable_names[name] = self._names[name]
            else:
                del self._durable_names[name]

    def _set_name(self, name: str, file: _File | None) -> None:
        self._lost_names.discard(name)
        if file is None:
            del self._names[name]
        else:
            self._names[name] = file


def _carry_out(content: bytearray, op: Op, offset: int, data: bytes) -> None:
    if op is Op.TRUNCATE:
        del content[offset:]
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


def _torn(file: _File, draw: random.Random) -> bytes:
    content = bytearray(file.durable)
    for waiting in file.unflushed:
        if waiting.op is Op.TRUNCATE:
            if draw.random() < 0.5:
                _carry_out(content, waiting.op, waiting.offset, b"")
            continue
        start = waiting.offset
        while start < waiting.offset + len(waiting.data):
            end = min(start - start % SECTOR_BYTES + SECTOR_BYTES, waiting.offset + len(waiting.data))
            if draw.random() < 0.5:
                piece = waiting.data[start - waiting.offset : end - waiting.offset]
                _carry_out(content, Op.WRITE, start, piece)
            start = end
    return bytes(content)
