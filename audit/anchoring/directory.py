"""Heads as files in a folder that leaves the room or can be written once.

    FOLDER/cloister-anchors                    put there by the operator: this medium is meant, and it is mounted
    FOLDER/<origin>/<size>.checkpoint          one signed head each, mode 0444
    FOLDER/<origin>/newest.checkpoint          the newest of them again; not on a medium that is written once

Promise: a file appears whole and flushed, and so does its name; none is ever replaced but `newest`; nothing is written
beside or above a newer head.  A folder without the marker is a medium that is not there: the sink says so and makes
nothing, because a mount point without its medium is a folder on the root disk.  Everything happens below the folder
that was opened first, so that a medium that is taken out meanwhile is an error and no detour.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from audit.anchoring.head import CHECKPOINT_SUFFIX, SignedHead, file_name_of
from audit.anchoring.sink import Anchored
from audit.checkpoint import Checkpoint, split_note
from audit.errors import AnchorAhead, AnchorFailed, ProofRefused

MARKER = "cloister-anchors"
NEWEST = f"newest{CHECKPOINT_SUFFIX}"
_FILE_MODE = 0o444
_FOLDER_MODE = 0o755
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_MAX_NOTE_BYTES = 2**17
_ROLLED_BACK = "keep the medium for the auditor, and find out who restored this log"


class DirectorySink:
    """One folder."""

    def __init__(self, folder: Path, *, written_once: bool = False) -> None:
        self._folder = folder
        self._written_once = written_once
        """Such a medium refuses to replace a file, so `newest` is not kept there."""

    @property
    def name(self) -> str:
        """By the folder."""
        return f"directory:{self._folder}"

    def anchor(self, head: SignedHead, deadline_at: float) -> Anchored:
        """Write the head.  A file system cannot be given a deadline: whoever runs the sink stops waiting at it."""
        del deadline_at
        with self._on_the_medium(), _opened(self._folder, None) as medium:
            self._require_marker(medium)
            with _log_folder(medium, file_name_of(head.checkpoint.origin)) as log:
                _require_not_behind(log, head.checkpoint)
                _keep(log, f"{head.checkpoint.size}{CHECKPOINT_SUFFIX}", head)
                if not self._written_once:
                    _replace(log, NEWEST, head.note)
                os.fsync(log)
        return Anchored(head.checkpoint.size)

    def _require_marker(self, medium: int) -> None:
        try:
            status = os.stat(MARKER, dir_fd=medium, follow_symlinks=False)
        except FileNotFoundError:
            raise AnchorFailed(
                f"{self._folder} holds no file {MARKER}: the medium is not there, or was never prepared",
                hint=f"mount it; a new one is prepared by: touch {self._folder}/{MARKER}",
            ) from None
        if not stat.S_ISREG(status.st_mode):
            raise AnchorFailed(f"{self._folder}/{MARKER} is no file")

    @contextmanager
    def _on_the_medium(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise AnchorFailed(
                f"{self._folder}: {error.strerror or type(error).__name__}", hint="check mount, space and permissions"
            ) from error


@contextmanager
def _opened(path: Path | str, above: int | None) -> Iterator[int]:
    inside = 0 if above is None else os.O_NOFOLLOW  # the medium may be named by a link; nothing on it may lead off it
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | inside, dir_fd=above)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _log_folder(medium: int, name: str) -> Iterator[int]:
    try:
        os.mkdir(name, _FOLDER_MODE, dir_fd=medium)
        os.fsync(medium)
    except FileExistsError:
        pass
    with _opened(name, medium) as log:
        yield log


def _require_not_behind(log: int, offered: Checkpoint) -> None:
    newest = max(_sizes(log), default=0)
    if newest > offered.size:
        raise AnchorAhead(
            f"the medium holds a head of {newest} entries, this log has {offered.size}: it was rolled back",
            hint=_ROLLED_BACK,
        )


def _sizes(log: int) -> Iterator[int]:
    for name in os.listdir(log):
        stem = name.removesuffix(CHECKPOINT_SUFFIX)
        if stem != name and stem.isascii() and stem.isdigit():
            yield int(stem)


def _keep(log: int, name: str, head: SignedHead) -> None:
    """Make the file appear whole, or find that it says the same already."""
    kept = _read(log, name)
    if kept is not None:
        _require_same(kept, head.checkpoint)
        return
    draft = _draft(log, name, head.note)
    try:
        os.link(draft, name, src_dir_fd=log, dst_dir_fd=log)  # unlike rename, link never replaces
    except FileExistsError:
        _require_same(_read(log, name) or b"", head.checkpoint)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.rename(draft, name, src_dir_fd=log, dst_dir_fd=log)  # FAT: this sink alone writes here, and looked before
        return
    os.unlink(draft, dir_fd=log)


def _replace(log: int, name: str, note: str) -> None:
    if _read(log, name) != note.encode():
        os.rename(_draft(log, name, note), name, src_dir_fd=log, dst_dir_fd=log)


def _draft(log: int, name: str, note: str) -> str:
    draft = f".{name}.new"
    with suppress(FileNotFoundError):
        os.unlink(draft, dir_fd=log)  # of a writing that was cut short
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, _FILE_MODE, dir_fd=log)
    with os.fdopen(descriptor, "wb") as file:
        file.write(note.encode())
        file.flush()
        with suppress(PermissionError):  # FAT has no modes; elsewhere this undoes the process's mask
            os.fchmod(file.fileno(), _FILE_MODE)
        os.fsync(file.fileno())
    return draft


def _read(log: int, name: str) -> bytes | None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=log)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_MAX_NOTE_BYTES)


def _require_same(kept: bytes, offered: Checkpoint) -> None:
    """A key that rotates signs the same head with other lines; the head itself must be the one that was kept."""
    try:
        known = Checkpoint.from_text(split_note(kept.decode())[0])
    except (ProofRefused, UnicodeDecodeError) as error:
        raise AnchorFailed(f"what the medium keeps of size {offered.size} is no checkpoint: {error}") from error
    if known != offered:
        raise AnchorAhead(
            f"the medium holds another head of {offered.size} entries: this log was forked before it",
            hint=_ROLLED_BACK,
        )
