"""Events appended to a file, one a line, turned over by size.

Durable when taken: written and flushed to the disk (`fsync`), the folder too where a name in it changed.  A line is
in the file whole or not at all: what a crash or a full disk left of one is cut off before the next is written.
`NAME.1` is the newest of the full files; beyond `max_files` the oldest is deleted - it is a copy, the log has it all.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from audit.siem.sink import SinkFailed

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_TAIL_BYTES = 2**17
"""More than a line can have: a leaf has at most 65,535 bytes, and OCSF spells some characters with six."""


class FileSink:
    """One file and its full predecessors."""

    def __init__(self, path: Path, *, max_bytes: int, max_files: int) -> None:
        """Prepare; nothing is opened.

        Args:
            path: of the file that is written to.
            max_bytes: a file is turned over before it would grow beyond this; one batch always fits.
            max_files: full files that are kept beside it.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._descriptor: int | None = None

    def take(self, events: Sequence[bytes]) -> None:
        """See `audit.siem.sink.Sink.take`."""
        content = b"".join(events)
        try:
            descriptor = self._opened()
            size = os.fstat(descriptor).st_size
            if size and size + len(content) > self._max_bytes:
                self._turn_over()
                descriptor, size = self._opened(), 0
            self._append(descriptor, content, size)
        except OSError as failure:
            self.close()
            raise SinkFailed(f"{self._path}: {failure.strerror}") from failure

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, descriptor: int, content: bytes, size: int) -> None:
        try:
            written = 0
            while written < len(content):
                written += os.write(descriptor, content[written:])
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)  # a reader of lines must not meet the half of one
            raise

    def _opened(self) -> int:
        """Give the file that stands under the name now: someone else may have moved the one that we had."""
        if self._descriptor is not None and not self._is_current(self._descriptor):
            self.close()
        if self._descriptor is None:
            descriptor = os.open(self._path, _FLAGS, 0o600)
            try:
                self._require_file(descriptor)
                _cut_half_line(descriptor)
                _sync_folder(self._path.parent)
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
        return self._descriptor

    def _require_file(self, descriptor: int) -> None:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SinkFailed(f"{self._path} is not a file")

    def _is_current(self, descriptor: int) -> bool:
        ours = os.fstat(descriptor)
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return False
        return (ours.st_dev, ours.st_ino) == (found.st_dev, found.st_ino)

    def _turn_over(self) -> None:
        """Give every full file the next number, oldest first; the last falls out."""
        self.close()
        for number in range(self._max_files, 0, -1):
            younger = self._path if number == 1 else self._numbered(number - 1)
            if younger.exists():
                younger.replace(self._numbered(number))
        if self._max_files == 0:
            self._path.unlink()
        _sync_folder(self._path.parent)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _cut_half_line(descriptor: int) -> None:
    """Cut what stands behind the last newline: a crash left it, and its whole line will be sent again."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL_BYTES)
    tail = os.pread(descriptor, size - start, start)
    whole = start + tail.rfind(b"\n") + 1
    if whole < size and (start == 0 or whole > start):
        os.ftruncate(descriptor, whole)
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
