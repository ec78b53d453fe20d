"""A database file that appears whole or not at all, whatever ends the process that makes it.

Promise: while the block runs there is only a draft beside the path; the path gets the finished file in one step, which
never replaces one that is there, and is flushed with its folder.  A draft of a creation that was cut short is thrown
away by the next one, its journals first: nothing was ever acknowledged from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audit.errors import LogExists

FILE_MODE = 0o600
_JOURNALS = ("-wal", "-shm", "-journal")


@contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """Give an empty draft to fill and to close; it becomes `path` when the block ends well."""
    if path.exists():
        raise LogExists(path)
    draft = _draft_of(path)
    for leftover in (*(draft.with_name(draft.name + suffix) for suffix in _JOURNALS), draft):
        leftover.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, FILE_MODE))
    yield draft
    try:
        os.link(draft, path)  # unlike rename, link never replaces
    except FileExistsError as error:
        raise LogExists(path) from error
    draft.unlink()
    flush_folder(path.parent)


def drop_finished_draft(path: Path) -> None:
    """Take away the draft's name where the creation ended between giving the file its own and taking that one."""
    draft = _draft_of(path)
    if draft.exists() and draft.samefile(path):
        draft.unlink()


def _draft_of(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def flush_folder(folder: Path) -> None:
    """Make the folder's names durable, or raise."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
