"""A folder as a set of named files: listed, hashed and read without following a single link.

Laws: a name is a POSIX path that stays inside, in UTF-8, without backslash or control character; every folder on the
way is opened by its own name with O_NOFOLLOW, so that nothing outside can be reached, not even while somebody
renames; a link, device, socket or pipe anywhere is refused by name; a file that changes while it is read is refused.
Empty folders hold nothing and are not seen.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from offline_bundle.errors import FolderRefused

MAX_FILES = 100_000
MAX_NAME_BYTES = 1024
MAX_DEPTH = 32
_CHUNK_BYTES = 2**20
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def name_fault(name: str) -> str:
    """Say why a name may not stand for a file inside a folder; empty when it may."""
    parts = name.split("/")
    try:
        num_bytes = len(name.encode())
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if not name or num_bytes > MAX_NAME_BYTES or len(parts) > MAX_DEPTH:
        return "its name is empty, too long or too deep"
    if any(part in ("", ".", "..") for part in parts):
        return "its name is not a plain path below the folder"
    if any(character < " " or character in "\\\x7f" for character in name):
        return "its name holds a backslash or a control character"
    return ""


def list_folder(folder: Path) -> tuple[str, ...]:
    """The names of all files below a folder, sorted by code point.

    Raises:
        FolderRefused: something in it is no plain file, or has a name that no manifest may list.
    """
    with _open_root(folder) as root:
        return _list(root)


def hash_folder(folder: Path, *, skip: frozenset[str] = frozenset(), num_threads: int = 0) -> Mapping[str, str]:
    """The SHA-256 of every file below a folder but those in `skip`, sorted by code point of the name.

    Args:
        folder: what to hash.
        skip: names to leave out, e.g. the signature itself.
        num_threads: files hashed at once; 0 means one per core.
    """
    with (
        _open_root(folder) as root,
        ThreadPoolExecutor(max_workers=num_threads or os.cpu_count() or 1) as pool,
    ):
        names = [name for name in _list(root) if name not in skip]
        digests = pool.map(lambda name: _hash(root, name), names)
        return MappingProxyType(dict(zip(names, digests, strict=True)))


def hash_file(folder: Path, name: str) -> str:
    """The SHA-256 of one file, hexadecimal."""
    _check_name(name)
    with _open_root(folder) as root:
        return _hash(root, name)


def read_file(folder: Path, name: str, *, max_bytes: int) -> bytes:
    """The bytes of one file, read once; more than `max_bytes` is refused."""
    _check_name(name)
    with _open_root(folder) as root:
        return b"".join(_chunks(root, name, max_bytes=max_bytes))


def copy_file(folder: Path, name: str, target: Path) -> str:
    """Copy one file into a new file (mode 0600, flushed) and return the SHA-256 of the bytes that were copied."""
    _check_name(name)
    digest = hashlib.sha256()
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with _open_root(folder) as root, os.fdopen(os.open(target, flags, 0o600), "wb") as copy:
        for chunk in _chunks(root, name):
            digest.update(chunk)
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    return digest.hexdigest()


def _check_name(name: str) -> None:
    fault = name_fault(name)
    if fault:
        raise FolderRefused(name, fault, hint="names come from a signed manifest only")


def _list(root: int) -> tuple[str, ...]:
    names: list[str] = []
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with _open_folder(root, prefix) as descriptor, os.scandir(descriptor) as entries:
            for entry in entries:
                name = f"{prefix}/{entry.name}" if prefix else entry.name
                fault = name_fault(name)
                if fault:
                    raise FolderRefused(name, fault, hint="rename or remove it before signing")
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                elif entry.is_file(follow_symlinks=False):
                    names.append(name)
                else:
                    raise FolderRefused(name, _kind(entry), hint="replace it by a plain file, or remove it")
        if len(names) > MAX_FILES:
            raise FolderRefused("", f"more than {MAX_FILES} files", hint="is it the right folder?")
    return tuple(sorted(names))


def _kind(entry: os.DirEntry[str]) -> str:
    return "it is a symbolic link" if entry.is_symlink() else "it is neither a file nor a folder"


def _hash(root: int, name: str) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(root, name):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(root: int, name: str, *, max_bytes: int | None = None) -> Iterator[bytes]:
    """The file's bytes, each read once; an error at the end if the file changed meanwhile."""
    with _open_file(root, name) as descriptor:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise FolderRefused(name, "it is no plain file", hint="replace it by a plain file")
        if max_bytes is not None and before.st_size > max_bytes:
            raise FolderRefused(
                name, f"{before.st_size} bytes, at most {max_bytes} are read", hint="is it the right file?"
            )
        num_left = before.st_size
        while num_left > 0 and (chunk := _read(descriptor, min(_CHUNK_BYTES, num_left), name)):
            num_left -= len(chunk)
            yield chunk
        after = os.fstat(descriptor)
    if num_left or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise FolderRefused(name, "it changed while it was read", hint="let nobody write there, then try again")


def _read(descriptor: int, num_bytes: int, name: str) -> bytes:
    try:
        return os.read(descriptor, num_bytes)
    except OSError as error:
        raise FolderRefused(name, f"it cannot be read: {error.strerror}", hint="check the medium") from error


@contextmanager
def _open_file(root: int, name: str) -> Iterator[int]:
    parent, _, last = name.rpartition("/")
    with _open_folder(root, parent) as folder:
        descriptor = _open(last, _FILE_FLAGS, folder, name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _open_root(folder: Path) -> Iterator[int]:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise FolderRefused("", f"{folder} cannot be opened: {error.strerror}", hint="check its path") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _open_folder(root: int, name: str) -> Iterator[int]:
    """Open a folder below the root, one component at a time."""
    descriptor = os.dup(root)
    try:
        for part in name.split("/") if name else ():
            below = _open(part, _FOLDER_FLAGS, descriptor, name)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def _open(part: str, flags: int, folder: int, name: str) -> int:
    try:
        return os.open(part, flags, dir_fd=folder)
    except OSError as error:
        raise FolderRefused(
            name, f"it cannot be opened: {error.strerror}", hint="it must be a plain file that this user may read"
        ) from error
