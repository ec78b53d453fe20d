"""A SQLite log held for writing: locked against other processes, its journal moved by hand, its files watched.

Promise: one process at a time, by one name.  Never: let SQLite copy its journal by itself, or go on after an error of a
commit: a retry after a failed fsync can falsely succeed, and nobody but a fresh opening can tell what is durable.

Not safe to share: it belongs to one thread at a time.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import NoReturn, Self

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from audit.errors import LogMissing, LogUnusable, WriterLocked
from audit.faults import naming_file
from audit.guards import FileGuard, disk_short
from audit.new_file import drop_finished_draft, flush_folder
from audit.sqlite.engine import move_wal_into_database, open_engine
from audit.store import StoredHead, stored_head


class SqliteHold:
    """Made by `take`, ended by `let_go`."""

    def __init__(self, path: Path, lock_descriptor: int, engine: Engine) -> None:
        self.engine = engine
        self._path = path
        self._lock_descriptor = lock_descriptor
        self._files = FileGuard.of((path, _beside(path, "-wal"), _lock_path(path)))
        self._num_commits_in_wal = 0
        self._journal = _beside(path, "-wal")
        self._journal_len = 0
        """It never shrinks while it is held: SQLite writes over its beginning, and it is cut on closing alone."""

    @classmethod
    def take(cls, path: Path) -> Self:
        """Lock the log for this process.

        1. the log has no second name, whose lock and journal nobody here would see; 2. the lock; 3. the first
        transaction makes the journal; 4. its name is flushed by us: SQLite passes over an error of that.
        """
        if not path.is_file():
            raise LogMissing(path)
        with naming_file(path, LogUnusable):
            _require_one_name(path)
            descriptor = _lock(path)
            try:
                engine = open_engine(path, read_only=False)
                try:
                    with engine.begin():
                        flush_folder(path.parent)
                    return cls(path, descriptor, engine)
                except BaseException:
                    engine.dispose()
                    raise
            except BaseException:
                os.close(descriptor)
                raise

    def unsound(self) -> str | None:
        """Tell when the open files are no longer the ones in the folder, or the journal lost its end to somebody."""
        replaced = self._files.replaced()
        if replaced is not None:
            return replaced
        length, before = self._journal.stat().st_size, self._journal_len
        self._journal_len = max(length, before)
        return f"{self._journal.name} shrank from {before} to {length} bytes" if length < before else None

    def short_of_space(self, min_free_bytes: int) -> str | None:
        """Tell when less than the floor is free."""
        return disk_short(self._path.parent, min_free_bytes)

    def head(self, connection: Connection) -> StoredHead:
        """Nothing more to ask: the lock is the process's own."""
        return stored_head(connection)

    def head_after_failure(self, error: DBAPIError, deadline: float) -> NoReturn:  # noqa: ARG002 - see the class
        """Never go on."""
        raise error

    def tidy(self, after_commits: int) -> None:
        """Copy the write-ahead log into the main file once so many commits have collected in it."""
        self._num_commits_in_wal += 1
        if self._num_commits_in_wal >= after_commits:
            move_wal_into_database(self.engine)
            self._num_commits_in_wal = 0

    def close_in_order(self) -> None:
        """Copy all of the write-ahead log into the main file: the last act of a log that is closed in good order."""
        move_wal_into_database(self.engine, truncate=True)

    def let_go(self) -> None:
        """Close the connection, then drop the lock."""
        self.engine.dispose()
        os.close(self._lock_descriptor)


def _require_one_name(path: Path) -> None:
    drop_finished_draft(path)
    if path.is_symlink() or path.stat().st_nlink != 1:
        raise LogUnusable(
            path, "it has a second name, under which another writer would not be seen", hint="leave it one name"
        )


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _lock_path(path: Path) -> Path:
    return _beside(path, ".writer")


def _lock(path: Path) -> int:
    """Hold the log for this process.

    The lock is a file of its own: opening and closing the database by another descriptor would drop SQLite's locks.
    """
    descriptor = os.open(_lock_path(path), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise WriterLocked(path) from error
    return descriptor
