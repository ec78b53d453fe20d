"""Bytes of a model folder, handed out only after their SHA-256 matched the expected one.

Invariants:
1. A file that is not named in the expected digests is never opened, whatever asks for it.
2. Every file is opened once, through no symbolic link below the folder, and must be a regular file.
3. Bytes are read into anonymous private memory, hashed there, and used from there: what was verified is what is
   used, and a later change of the file on disk changes nothing.
4. No byte is given to a parser before the digest of the whole file matched.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import stat
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from engine.config import FileDigest
from engine.weights.errors import DigestMismatch, FileRefused

READ_CHUNK_BYTES = 8 * 2**20
MAX_PARALLEL_FILES = 4
"""One file has one digest, so a file is hashed in order; files are hashed beside one another."""

SHA256_HEX = re.compile(r"[0-9a-f]{64}")


class VerifiedFile:
    """One file's verified bytes in private anonymous memory; this object owns the memory."""

    def __init__(self, name: str, memory: mmap.mmap, size_bytes: int) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self._memory = memory

    @property
    def view(self) -> memoryview:
        """All bytes, without a copy."""
        return memoryview(self._memory)[: self.size_bytes]

    def unsafe_discard(self, start: int, end: int) -> None:
        """Give the memory of bytes [start, end) back to the system; they read as zeros from now on.

        Unsafe because every view of these bytes becomes wrong: call it only for bytes that nobody will read again.
        Pages that reach over either border are kept.
        """
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = end // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._memory.madvise(mmap.MADV_DONTNEED, first, last - first)


class VerifiedFolder:
    """Reader of the named files of one model folder.

    Holds no open file between calls.  May be used from several threads.
    """

    def __init__(self, model_dir: str, file_digests: Sequence[FileDigest]) -> None:
        self._model_dir = model_dir
        self._expected: dict[str, str] = {}
        for file in file_digests:
            if file.name in self._expected:
                raise FileRefused(file.name, "it is named twice", "repair the model's manifest")
            if SHA256_HEX.fullmatch(file.sha256) is None:
                raise FileRefused(
                    file.name, "its expected digest is not 64 lower-case hex digits", "repair the model's manifest"
                )
            if not _is_plain_relative(file.name):
                raise FileRefused(file.name, "its name leaves the model folder", "repair the model's manifest")
            self._expected[file.name] = file.sha256

    def __contains__(self, name: str) -> bool:
        return name in self._expected

    def read(self, name: str, *, max_bytes: int | None = None) -> VerifiedFile:
        """Read one file whole and verify it.

        Raises:
            FileRefused: it is not named, not a regular file, unreadable, or longer than `max_bytes`.
            DigestMismatch: its bytes are not the expected ones.
        """
        expected = self._expected.get(name)
        if expected is None:
            raise FileRefused(name, "it is needed but the signed manifest does not name it", "sign the whole folder")
        try:
            file, actual = _read_and_hash(self._model_dir, name, max_bytes)
        except FileRefused:
            raise
        except OSError as error:
            raise FileRefused(name, _os_reason(error), "check that the file lies there and may be read") from error
        if actual != expected:
            raise DigestMismatch(name, expected, actual)
        return file

    def read_all(self, names: Iterable[str]) -> dict[str, VerifiedFile]:
        """Read several files beside one another; all of them verify or the first refusal in order is raised."""
        ordered = tuple(dict.fromkeys(names))
        with ThreadPoolExecutor(MAX_PARALLEL_FILES, thread_name_prefix="verify") as pool:
            return dict(zip(ordered, pool.map(self.read, ordered), strict=True))


def _is_plain_relative(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        bool(path.parts)
        and "\0" not in name
        and str(path) == name
        and not path.is_absolute()
        and ".." not in path.parts
    )


def _open_no_link(model_dir: str, name: str) -> int:
    """Open a file below the folder, component by component, so that no link is followed on the way."""
    *folders, leaf = PurePosixPath(name).parts
    directory = os.open(model_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = inner
        # O_NONBLOCK: opening a pipe must not wait for its other end; a regular file does not care.
        return os.open(leaf, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
    finally:
        os.close(directory)


def _read_and_hash(model_dir: str, name: str, max_bytes: int | None) -> tuple[VerifiedFile, str]:
    descriptor = _open_no_link(model_dir, name)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FileRefused(name, "it is not a regular file", "the folder must hold plain files only")
        size = status.st_size
        if max_bytes is not None and size > max_bytes:
            raise FileRefused(
                name, f"it has {size} bytes, the limit is {max_bytes}", "the file cannot be what it claims"
            )
        # Private and anonymous: no other process can reach it, and the file on disk no longer matters.
        memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return VerifiedFile(name, memory, size), _fill_and_hash(descriptor, name, memoryview(memory)[:size])
    finally:
        os.close(descriptor)


def _fill_and_hash(descriptor: int, name: str, buffer: memoryview) -> str:
    """Read chunk i + 1 while chunk i is hashed on another thread (hashlib lets go of the interpreter lock)."""
    digest = hashlib.sha256()
    if len(buffer) <= READ_CHUNK_BYTES:
        _fill(descriptor, name, buffer)
        digest.update(buffer)
        return digest.hexdigest()
    with ThreadPoolExecutor(1, thread_name_prefix="hash") as hasher:
        hashed = None
        for start in range(0, len(buffer), READ_CHUNK_BYTES):
            chunk = buffer[start : start + READ_CHUNK_BYTES]
            _fill(descriptor, name, chunk)
            if hashed is not None:
                hashed.result()
            hashed = hasher.submit(digest.update, chunk)
    return digest.hexdigest()


def _fill(descriptor: int, name: str, buffer: memoryview) -> None:
    filled = 0
    while filled < len(buffer):
        count = os.readv(descriptor, [buffer[filled:]])
        if count == 0:
            raise FileRefused(name, "it became shorter while it was read", "nothing may write into a served folder")
        filled += count


def _os_reason(error: OSError) -> str:
    return f"it cannot be read: {os.strerror(error.errno)}" if error.errno is not None else "it cannot be read"
