"""A log held open for appending: its lock, its one connection, and the head that the next batch extends.

Promise: one process at a time; a batch is durable whole or not at all; the head in memory moves only after the commit
returned and the files were found to be still the ones that were opened.  Never: repair a head that was not proven on
opening, extend a head on disk that is not the one in memory, or let SQLite copy its journal by itself.

Not safe to share: it belongs to one thread at a time.  Any error of `extend` or `move_wal_when_due` means that nobody
knows what is durable: the owner must stop for good and let go, and opening again tells.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from sqlalchemy import Connection, Engine

from audit.batch import BatchPlan
from audit.checkpoint import Checkpoint, LogVerifier
from audit.errors import AuditHalted, LogMissing, WriterLocked
from audit.guards import FileGuard
from audit.merkle import RightEdge
from audit.recovery import RecoveredHead, recover_head
from audit.schema import checkpoint_table, leaf_table, node_table
from audit.store import (
    bulk_insert,
    move_wal_into_database,
    open_engine,
    require_own_schema,
    require_revision,
    snapshot,
    stored_head,
)


class OpenLog:
    """Made by `open`, which locks and proves; ended by `let_go`."""

    def __init__(self, path: Path, engine: Engine, lock_descriptor: int, head: RecoveredHead) -> None:
        self.last_epoch = head.last_epoch
        """The epoch of the newest leaf when the log was opened, 0 for an empty log."""
        self._engine = engine
        self._lock_descriptor = lock_descriptor
        self._files = FileGuard.of((path, _beside(path, "-wal"), _lock_path(path)))
        # Moved by `extend` alone:
        self._edge: RightEdge = head.edge
        self._checkpoint: Checkpoint = head.checkpoint
        self._num_commits_in_wal = 0

    @classmethod
    def open(cls, path: Path, verifiers: Sequence[LogVerifier]) -> Self:
        """Lock the log, refuse tables that are not ours, prove its head by one of these keys."""
        if not path.is_file():
            raise LogMissing(path)
        lock_descriptor = _lock(path)
        try:
            engine = open_engine(path, read_only=False)
            try:
                with snapshot(engine, path) as connection:
                    require_revision(connection)
                    require_own_schema(connection, path)
                    head = recover_head(connection, verifiers)
                return cls(path, engine, lock_descriptor, head)
            except BaseException:
                engine.dispose()
                raise
        except BaseException:
            os.close(lock_descriptor)
            raise

    @property
    def edge(self) -> RightEdge:
        """What the next batch is planned on."""
        return self._edge

    @property
    def checkpoint(self) -> Checkpoint:
        """Newest checkpoint that is known to be durable; any thread may read it."""
        return self._checkpoint

    def files_replaced(self) -> str | None:
        """Tell when the open files are no longer the ones in the folder."""
        return self._files.replaced()

    def extend(self, plan: BatchPlan) -> float:
        """Commit a plan that was made on `edge`, and go on from it; return the seconds that the commit took."""
        started = time.perf_counter()
        with self._engine.begin() as connection:
            self._require_own_head(connection)
            bulk_insert(connection, leaf_table, plan.leaf_rows)
            bulk_insert(connection, node_table, plan.node_rows)
            bulk_insert(connection, checkpoint_table, (plan.checkpoint_row,))
        seconds = time.perf_counter() - started
        replaced = self._files.replaced()
        if replaced is not None:
            raise AuditHalted(replaced)
        self._edge, self._checkpoint = plan.edge, plan.checkpoint
        self._num_commits_in_wal += 1
        return seconds

    def move_wal_when_due(self, after_commits: int) -> None:
        """Copy the write-ahead log into the main file once so many commits have collected in it."""
        if self._num_commits_in_wal >= after_commits:
            move_wal_into_database(self._engine)
            self._num_commits_in_wal = 0

    def empty_wal(self) -> None:
        """Copy all of the write-ahead log into the main file: the last act of a log that is closed in good order."""
        move_wal_into_database(self._engine, truncate=True)

    def let_go(self) -> None:
        """Close the connection, then drop the lock."""
        self._engine.dispose()
        os.close(self._lock_descriptor)

    def _require_own_head(self, connection: Connection) -> None:
        """Inside the transaction that will extend it: the head on disk is still the one in memory."""
        stored = stored_head(connection)
        if stored != (self._edge.size, self._checkpoint.root, self._edge.size):
            raise AuditHalted(f"the head on disk is {stored[0]} ({stored[2]} leaves), in memory {self._edge.size}")


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
