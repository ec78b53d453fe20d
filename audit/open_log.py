"""A log held open for appending: the head that the next batch extends, and the one commit that extends it.

Promise: one writer at a time (`holding`); a batch is durable whole or not at all; the head in memory moves only after
the commit is known to be durable and the store is found to be still the one that was opened.  A commit of unknown
outcome is read back where the store can be asked (PostgreSQL) and fatal where it cannot (SQLite).  Never: repair a head
that was not proven on opening, or extend a head in the store that is not the one in memory.

Not safe to share: it belongs to one thread at a time.  Any error of `extend`, `tidy` or `sweep` means that nobody knows
what is durable: the owner must stop for good and let go, and opening again tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from audit.batch import BatchPlan
from audit.checkpoint import Checkpoint, LogVerifier
from audit.errors import AuditHalted
from audit.event import Floor, Pruned
from audit.holding.hold import Hold, take_hold
from audit.location import LogLocation
from audit.merkle import RightEdge
from audit.migrating import apply_migrations, is_older, require_revision, stored_revision
from audit.recovery import RecoveredHead, recover_head
from audit.schema import checkpoint_table, content_table, leaf_policy_table, leaf_table, node_table, pruning_table
from audit.store import Floors, StoredHead, bulk_insert, require_own_schema, snapshot, stored_floors
from audit.sweep import sweep_pruned

_SWEEPS_PER_TIDY = 16
"""A deleted entry writes as much as a new one: what many sweeps leave in a journal would fill the disk."""


class OpenLog:
    """Made by `open`, which holds and proves; ended by `let_go`."""

    def __init__(self, hold: Hold, head: RecoveredHead, floors: Floors) -> None:
        self.last_epoch = head.last_epoch
        """The epoch of the newest leaf when the log was opened, 0 for an empty log."""
        self._hold = hold
        # Moved by `extend` alone:
        self._edge: RightEdge = head.edge
        self._checkpoint: Checkpoint = head.checkpoint
        self._floors = floors
        """Moved by `raise_floor`, before the batch that records it: a batch that fails ends this log anyway."""
        self.has_pruned_rows = floors.content > 0
        """Whether rows may lie below a floor: set when a floor rises, cleared by `sweep`."""

    @classmethod
    def open(cls, location: LogLocation, verifiers: Sequence[LogVerifier]) -> Self:
        """Hold the log, bring its tables up to date, refuse tables that are not ours, prove its head by these keys."""
        hold = take_hold(location)
        try:
            if isinstance(location, Path):
                _bring_up_to_date(hold, location, verifiers)
            with snapshot(hold.engine, location) as connection:
                require_revision(connection)
                require_own_schema(connection, location)
                head = recover_head(connection, verifiers)
                floors = stored_floors(connection)
            log = cls(hold, head, floors)
            hold.unsound()
        except BaseException:
            hold.let_go()
            raise
        return log

    @property
    def edge(self) -> RightEdge:
        """What the next batch is planned on."""
        return self._edge

    @property
    def checkpoint(self) -> Checkpoint:
        """Newest checkpoint that is known to be durable; any thread may read it."""
        return self._checkpoint

    def unsound(self, min_free_bytes: int) -> str | None:
        """Tell why nothing may be written now."""
        return self._hold.unsound() or self._hold.short_of_space(min_free_bytes)

    def raise_floor(self, floor: Floor) -> str | None:
        """Take note of a floor that the next batch will record, or tell why it may not."""
        standing = self._floors.leaf if floor.what is Pruned.LEAF else self._floors.content
        if floor.minimum_index <= standing:
            return f"the floor is at {standing} already"
        if floor.minimum_index > self._edge.size:
            return f"the log has {self._edge.size} entries, none at {floor.minimum_index}"
        leaf = floor.minimum_index if floor.what is Pruned.LEAF else self._floors.leaf
        self._floors = Floors(max(self._floors.content, floor.minimum_index), leaf)
        return None

    def extend(self, plan: BatchPlan, *, patience_s: float, on_interruption: Callable[[str], None]) -> float:
        """Commit a plan that was made on `edge`, and go on from it; return the seconds that the commit took.

        Args:
            plan: what to commit.
            patience_s: how long, from the first failure on, a database that went away is waited for, where it can be
                asked again.
            on_interruption: called with the reason each time the outcome has to be asked for.
        """
        started = time.perf_counter()
        deadline: float | None = None
        while (error := self._failure_of(plan)) is not None:
            deadline = time.monotonic() + patience_s if deadline is None else deadline
            on_interruption(_reason(error))
            head = self._hold.head_after_failure(error, deadline)
            if head == _head_of(plan.checkpoint):
                break
            self._require_head(head)  # nothing of it is durable: it may go again as it is
            if time.monotonic() > deadline:
                raise AuditHalted(f"{_reason(error)}, again and again")
        seconds = time.perf_counter() - started
        unsound = self._hold.unsound()
        if unsound is not None:
            raise AuditHalted(unsound)
        self._edge, self._checkpoint = plan.edge, plan.checkpoint
        self.has_pruned_rows = self.has_pruned_rows or bool(plan.pruning_rows)
        return seconds

    def sweep(self, max_entries: int, *, patience_s: float, on_interruption: Callable[[str], None]) -> None:
        """Delete some of what lies below a recorded floor; it was gone for readers since the floor rose.

        A database that went away is waited for as in `extend`; whether it had done this step is the next one's to see.
        """
        try:
            with self._hold.engine.begin() as connection:
                self._require_head(self._hold.head(connection))
                has_more = sweep_pruned(connection, max_entries)
        except DBAPIError as error:
            on_interruption(_reason(error))
            self._require_head(self._hold.head_after_failure(error, time.monotonic() + patience_s))
            return
        self.has_pruned_rows = has_more
        self._hold.tidy(_SWEEPS_PER_TIDY)

    def tidy(self, after_commits: int) -> None:
        """Do what the store wants between two commits."""
        self._hold.tidy(after_commits)

    def close_in_order(self) -> None:
        """Do what the store wants as the last act of a log that is closed in good order."""
        self._hold.close_in_order()

    def let_go(self) -> None:
        """Give the log up."""
        self._hold.let_go()

    def _failure_of(self, plan: BatchPlan) -> DBAPIError | None:
        """Commit once; return the error after which nobody knows whether it happened."""
        try:
            self._insert(plan)
        except DBAPIError as error:
            return error
        return None

    def _insert(self, plan: BatchPlan) -> None:
        with self._hold.engine.begin() as connection:
            self._require_head(self._hold.head(connection))
            _insert_rows(connection, plan)

    def _require_head(self, stored: StoredHead) -> None:
        """The head in the store is still the one in memory: nobody else wrote, and nothing acknowledged is lost."""
        if stored != _head_of(self._checkpoint):
            raise AuditHalted(
                f"the head in the store is {stored.size} ({stored.num_leaves} leaves), in memory {self._edge.size}"
            )


def _reason(error: DBAPIError) -> str:
    return f"the database failed: {error.orig}"  # without statement and parameters


def _insert_rows(connection: Connection, plan: BatchPlan) -> None:
    """The checkpoint last: it closes the batch, and the fence lets nothing be added to what is signed."""
    bulk_insert(connection, leaf_table, plan.leaf_rows)
    bulk_insert(connection, leaf_policy_table, plan.policy_rows)
    bulk_insert(connection, content_table, plan.content_rows)
    bulk_insert(connection, pruning_table, plan.pruning_rows)
    bulk_insert(connection, node_table, plan.node_rows)
    bulk_insert(connection, checkpoint_table, (plan.checkpoint_row,))


def _head_of(checkpoint: Checkpoint) -> StoredHead:
    return StoredHead(checkpoint.size, checkpoint.root, checkpoint.size)


def _bring_up_to_date(hold: Hold, path: Path, verifiers: Sequence[LogVerifier]) -> None:
    """Migrate an older file, once its head is proven; in one transaction."""
    with snapshot(hold.engine, path) as connection:
        if is_older(stored_revision(connection)):
            recover_head(connection, verifiers)
            apply_migrations(connection)
