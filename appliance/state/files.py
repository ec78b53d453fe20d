"""Files that only this account may see: written whole and flushed, read only when nobody else could have."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.state.errors import StateCorrupt, StateExposed, StateMissing, StateUnusable

FOLDER_MODE = 0o700
FILE_MODE = 0o600
_OTHERS = 0o077
_CHUNK_BYTES = 2**20
MAX_FILE_BYTES = 64 * 2**20


def write_private(path: Path, content: bytes) -> None:
    """Create a file (mode 0600) with this content, flushed; an existing one is an error of the caller."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, FILE_MODE), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def make_folder(path: Path) -> Path:
    """Create a folder (mode 0700) and those above it."""
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(FOLDER_MODE)
    return path


def read_private(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Read a small file whole.

    Raises:
        StateError: it is missing, a link, open to others, too large or unreadable.
    """
    with refusing(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            check_entry(path, status)
            if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
                raise StateCorrupt(path, f"it is no file of at most {max_bytes} bytes", hint="restore it from a backup")
            content = b"".join(iter(lambda: os.read(descriptor, _CHUNK_BYTES), b""))
        finally:
            os.close(descriptor)
    return content


def check_tree(root: Path) -> None:
    """Refuse a state in which any folder or file is a link, belongs to another account or is open to others.

    Raises:
        StateError: names the first such path and the command that closes it.
    """
    with refusing(root):
        check_entry(root, root.lstat())
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        with refusing(folder), os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            path = Path(entry.path)
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # a database's journal that its owner removed meanwhile
            check_entry(path, status)
            if stat.S_ISDIR(status.st_mode):
                waiting.append(path)


def check_entry(path: Path, status: os.stat_result) -> None:
    """Refuse one folder or file that lets others in."""
    is_folder = stat.S_ISDIR(status.st_mode)
    if not is_folder and not stat.S_ISREG(status.st_mode):
        raise StateExposed(path, "it is neither a file nor a folder", hint="replace it by what it points to")
    if status.st_uid != os.geteuid():
        raise StateExposed(path, "it belongs to another account", hint=f"chown -R {os.geteuid()} {path}")
    if status.st_mode & _OTHERS:
        wanted = FOLDER_MODE if is_folder else FILE_MODE
        raise StateExposed(
            path,
            f"mode {stat.S_IMODE(status.st_mode):04o} lets other accounts in",
            hint=f"find out who could read it, then: chmod {wanted:o} {path}",
        )


def flush_tree(root: Path) -> None:
    """Make every name below a folder durable; files were flushed as they were written."""
    for folder, _, _ in os.walk(root):
        flush_folder(Path(folder))


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn what the file system says about a path into our errors."""
    try:
        yield
    except FileNotFoundError as error:
        raise StateMissing(
            _named(error, path), "it is missing", hint="restore it from a backup, or make a new state"
        ) from error
    except OSError as error:
        raise StateUnusable(
            _named(error, path), error.strerror or "it cannot be used", hint="check space, owner and permissions"
        ) from error


def _named(error: OSError, path: Path) -> Path:
    return Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
