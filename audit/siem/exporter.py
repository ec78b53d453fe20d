"""The thread that copies one log to one destination, in order, from a durable cursor.

Promise: at least once - leaves are read when they are durable, the sink takes them, only then the cursor moves; a crash
between the two sends them again.  Nothing waits for this thread: the writer wakes it and goes on, a failing sink is
tried again later and later, one that hangs holds up this thread alone, and `status` tells from outside.

Crash states: before the sink took a batch nothing moved; after it and before the cursor moved the batch is sent twice;
never is one skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from threading import Event as Flag
from threading import Thread

from audit.entry import Entry
from audit.errors import AuditError
from audit.reader import AuditReader
from audit.siem.cursor import Cursor, CursorFile
from audit.siem.destination import Destination
from audit.siem.exported import ExportedLeaf, LogName
from audit.siem.sink import Sink, SinkFailed


@dataclass(frozen=True, slots=True)
class ExportPace:
    """How one destination is fed."""

    max_batch_len: int = 256
    first_retry_s: float = 1.0
    """After a failure; doubles up to the longest."""
    longest_retry_s: float = 60.0


@dataclass(frozen=True, slots=True)
class ExportStatus:
    """One destination at one moment."""

    next_index: int
    """The first leaf that it is not known to have."""
    num_taken: int
    """Leaves that it took since the start of this process."""
    failure: str | None
    """Why the last try failed; None after one that did not."""
    failure_code: str | None
    """`sink_failed`, `log_unreadable`, `cursor_refused`, `log_differs`, or `internal_error`."""
    num_failures: int
    """Failed tries since the start of this process."""
    busy_since: float | None
    """When the sink was given what it has not taken yet, on the monotonic clock."""
    concerns_others: bool
    """What is being sent, or failed last, holds more than the exports' own leaves."""


class CursorMismatch(AuditError):
    """The operator: the log behind the cursor is not the one that was copied."""


class Exporter:
    """Begins at once; ended by `close`.  `status` and `wake` may be used by any thread."""

    def __init__(
        self,
        destination: Destination,
        name: LogName,
        reader: AuditReader,
        sink: Sink,
        cursor_file: CursorFile,
        *,
        pace: ExportPace = ExportPace(),
        own_kinds: Collection[str] = (),
        on_change: Callable[[], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the thread.

        Args:
            destination: where to.
            name: whose events these are.
            reader: of the log; may be shared.
            sink: opened and closed by the thread.
            cursor_file: read and moved by the thread.
            pace: how the destination is fed.
            own_kinds: kinds of the leaves that tell of exports; they alone never count as a failure to tell of.
            on_change: called in the thread after a try failed or worked again.
            monotonic: seconds.
        """
        self.destination = destination
        self._name = name
        self._reader = reader
        self._sink = sink
        self._cursor_file = cursor_file
        self._pace = pace
        self._own_kinds = frozenset(own_kinds)
        self._on_change = on_change
        self._monotonic = monotonic
        self._wake = Flag()
        self._closing = Flag()
        # Owned by the thread from here on; others read `_status` alone, which is replaced whole.
        self._cursor: Cursor | None = None
        self._status = ExportStatus(0, 0, None, None, 0, None, concerns_others=False)
        self._thread = Thread(target=self._run, name=f"siem-{destination.digest}", daemon=True)
        self._thread.start()

    @property
    def status(self) -> ExportStatus:
        """As of now."""
        return self._status

    def wake(self) -> None:
        """Say that the log has grown; costs nothing and waits for nothing."""
        self._wake.set()

    def close(self, grace_s: float) -> bool:
        """Send what is durable now, if the destination takes it, and end; False when it hangs and was left alone."""
        self._closing.set()
        self._wake.set()
        self._thread.join(grace_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        retry_s = self._pace.first_retry_s
        try:
            while True:
                self._wake.clear()
                is_last_round = self._closing.is_set()
                try:
                    has_moved = self._send_batch()
                except Exception as failure:  # noqa: BLE001 - a thread that ended would be a copy that stopped unseen
                    self._note_failure(failure)
                    if is_last_round:
                        return
                    self._closing.wait(retry_s)
                    retry_s = min(2 * retry_s, self._pace.longest_retry_s)
                    continue
                retry_s = self._pace.first_retry_s
                if has_moved:
                    continue
                if is_last_round:
                    return
                self._wake.wait()
        finally:
            self._sink.close()

    def _send_batch(self) -> bool:
        """Send the next leaves; False when there is none."""
        cursor = self._cursor = self._cursor or self._stored_cursor()
        after = cursor.next_index - 1
        entries = self._reader.entries(after=after, limit=self._pace.max_batch_len).entries
        if not entries:
            return False
        if entries[0].index != cursor.next_index:
            raise _pruned(cursor.next_index, entries[0].index)
        events = [self._encoded(entry) for entry in entries]
        concerns_others = any(entry.leaf.event.kind not in self._own_kinds for entry in entries)
        self._status = replace(self._status, busy_since=self._monotonic(), concerns_others=concerns_others)
        self._sink.take(events)
        moved = Cursor(entries[-1].index + 1, entries[-1].leaf_hash.hex())
        self._cursor_file.move(moved)
        self._cursor = moved
        self._note_taken(moved, len(entries))
        return True

    def _encoded(self, entry: Entry) -> bytes:
        exported = ExportedLeaf(entry.leaf, entry.leaf_bytes, entry.leaf_hash.hex())
        return self.destination.encode(exported, self._name)

    def _stored_cursor(self) -> Cursor:
        """Read where the last run came to, and hold it against the log."""
        stored, floor = self._cursor_file.load(), self._reader.floors().leaf
        if stored is None:
            stored = Cursor(floor, "")
        elif stored.next_index < floor:
            raise _pruned(stored.next_index, floor)
        elif stored.next_index > floor:
            last = stored.next_index - 1
            digest = self._reader.leaf_hashes([last]).get(last)
            if digest is None:
                raise CursorMismatch(
                    f"entry {last} was copied and is not in the log",
                    hint="the log was cut or rolled back: verify it against a kept checkpoint",
                )
            if digest.hex() != stored.last_leaf_hash:
                raise CursorMismatch(
                    f"entry {last} was copied with another hash",
                    hint="the log was replaced: verify it against a kept checkpoint",
                )
        self._status = replace(self._status, next_index=stored.next_index)
        return stored

    def _note_failure(self, failure: Exception) -> None:
        status = self._status
        in_sink = status.busy_since is not None
        is_known = isinstance(failure, (AuditError, OSError))
        self._status = replace(
            status,
            failure=str(failure) if is_known else type(failure).__name__,  # a message of a library may hold anything
            failure_code=_code_of(failure),
            num_failures=status.num_failures + 1,
            busy_since=None,
            concerns_others=status.concerns_others if in_sink else True,
        )
        self._tell()

    def _note_taken(self, cursor: Cursor, num_leaves: int) -> None:
        had_failed = self._status.failure is not None
        self._status = replace(
            self._status,
            next_index=cursor.next_index,
            num_taken=self._status.num_taken + num_leaves,
            failure=None,
            failure_code=None,
            busy_since=None,
        )
        if had_failed:
            self._tell()

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change()


def _pruned(next_index: int, floor: int) -> CursorMismatch:
    return CursorMismatch(
        f"entries {next_index} to {floor - 1} were pruned before they were copied",
        hint="remove the cursor while the appliance is stopped, and the copy goes on without them",
    )


def _code_of(failure: Exception) -> str:
    match failure:
        case SinkFailed():
            return "sink_failed"
        case CursorMismatch():
            return "log_differs"
        case OSError():
            return "cursor_refused"
        case AuditError():
            return "log_unreadable"
    return "internal_error"
