"""The one that appends: a thread that owns the open log, commits whole batches and answers only then.

Promise: a receipt is given only after leaves, tree nodes and a signed checkpoint are durable in one transaction; how
that is done, and the head that is extended, is `open_log`'s.
Concurrent: any thread and any event loop may append; order is the order of acceptance.  Latency: no linger, a batch is
whatever waited while the last one was committed, so an event waits at most two commits.

Fatal, once and for good: any error of a commit (a retry after a failed fsync can falsely succeed), a head on disk that
is not the one in memory, files replaced or removed, too little disk, a clock that was set.  After a failed commit it is
unknown whether the batch is durable; its receipts are never given, and reopening the log tells.  One error alone is
not the end: a PostgreSQL server that went away is waited for, asked what it has, and only then answered by (`holding`).

Crash states: before commit nothing of the batch exists; after commit all of it does, acknowledged or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from threading import Thread
from typing import Self

from sqlalchemy.exc import DBAPIError

from audit.batch import BatchPlan, plan_batch
from audit.beside import bind_contents, bind_floor
from audit.checkpoint import Checkpoint, LogSigner, LogVerifier
from audit.errors import AuditError, AuditHalted, AuditRefused
from audit.event import Event, Floor, Receipt, SealedContent
from audit.guards import SYSTEM_CLOCKS, ClockGuard, Clocks
from audit.leaf import DraftLeaf, Place, draft_leaf
from audit.location import LogLocation
from audit.open_log import OpenLog
from audit.waiting import LoopWaiter, ThreadWaiter, Waiter, WaitingLine, answer


@dataclass(frozen=True, slots=True)
class WriterConfig:
    """How one log is written."""

    path: LogLocation
    node_id: str
    boot_id: str
    queue_len: int = 4_096
    max_batch_len: int = 256
    min_free_bytes: int = 256 * 1024 * 1024
    clock_step_limit_us: int = 5_000_000
    wal_move_after_commits: int = 512
    """How many commits collect in the write-ahead log before it is copied into the main file, between two batches."""
    patience_s: float = 30.0
    """How long a database server that went away is waited for in the middle of a commit."""
    sweep_len: int = 1_024
    """How many pruned entries are deleted between two batches."""


class WriterState(Enum):
    """A writer goes one way through these."""

    RUNNING = "running"
    HALTED = "halted"
    CLOSED = "closed"


class AuditWriter:
    """Appends to one log; made by `open`, ended by `close`."""

    def __init__(
        self,
        config: WriterConfig,
        log: OpenLog,
        signers: Sequence[LogSigner],
        verifiers: Sequence[LogVerifier],
        clocks: Clocks,
        observe_commit: Callable[[float, int], None] | None,
        on_halt: Callable[[str], None] | None,
        on_interruption: Callable[[str | None], None] | None,
    ) -> None:
        self._config = config
        self._signers = tuple(signers)
        self._verifiers = tuple(verifiers)
        self._place = Place(config.node_id, config.boot_id, log.last_epoch + 1)
        self._observe_commit = observe_commit
        self._on_halt = on_halt
        self._on_interruption = on_interruption
        self._line = WaitingLine(config.queue_len)
        # Owned by the writer thread from here on; others only read `_state`, `_halt_reason` and the checkpoint.
        self._log = log
        self._clock_guard = ClockGuard(clocks, config.clock_step_limit_us)
        self._state = WriterState.RUNNING
        self._halt_reason: str | None = None
        self._thread = Thread(target=self._run, name="audit-writer", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        config: WriterConfig,
        signers: Sequence[LogSigner],
        *,
        earlier_verifiers: Sequence[LogVerifier] = (),
        clocks: Clocks = SYSTEM_CLOCKS,
        observe_commit: Callable[[float, int], None] | None = None,
        on_halt: Callable[[str], None] | None = None,
        on_interruption: Callable[[str | None], None] | None = None,
    ) -> Self:
        """Lock the log, prove its head, and start.

        Args:
            config: how the log is written.
            signers: the log's keys; the first names the log, more than one while a key rotates.
            earlier_verifiers: keys that signed heads before and sign no more.
            clocks: this machine's clocks.
            observe_commit: called in the writer's thread with the seconds and leaves of each commit.
            on_halt: called once, in the writer's thread, with the reason, after everyone waiting was told.
            on_interruption: called in the writer's thread with the reason when the database went away in the middle of
                a commit or of a sweep, so that nothing new is let in meanwhile, and with None when it is back.
        """
        verifiers = [*(signer.verifier for signer in signers), *earlier_verifiers]
        log = OpenLog.open(config.path, verifiers)
        try:
            return cls(config, log, signers, verifiers, clocks, observe_commit, on_halt, on_interruption)
        except BaseException:
            log.let_go()
            raise

    @property
    def state(self) -> WriterState:
        """Whether appending is possible."""
        return self._state

    @property
    def halt_reason(self) -> str | None:
        """Why the writer stopped for good, if it did."""
        return self._halt_reason

    @property
    def head(self) -> Checkpoint:
        """Newest checkpoint that is known to be durable."""
        return self._log.checkpoint

    @property
    def verifiers(self) -> tuple[LogVerifier, ...]:
        """Public keys of the log's heads, old ones included."""
        return self._verifiers

    @property
    def place(self) -> Place:
        """What every leaf of this opening says of where it was written."""
        return self._place

    @property
    def epoch(self) -> int:
        """This opening's number; every leaf carries it."""
        return self._place.epoch

    @property
    def num_waiting(self) -> int:
        """Events accepted and not yet being committed."""
        return len(self._line)

    def submit(self, event: Event, contents: Sequence[SealedContent] = ()) -> Future[Receipt]:
        """Accept an event, and what is sealed beside it, from any thread; the future gives its receipt or `AuditError`.

        Raises:
            AuditRefused: the event or a content breaks a rule; nothing was recorded.
            AuditQueueFull: too many wait; nothing was recorded.
            AuditHalted: the writer stopped.
        """
        future: Future[Receipt] = Future()
        self._line.put(ThreadWaiter(self._draft(event, contents), future))
        return future

    async def append(self, event: Event, contents: Sequence[SealedContent] = ()) -> Receipt:
        """Accept an event from a coroutine and wait until it is durable; raises as `submit` does.

        Cancelling the coroutine ends the waiting, never the recording.
        """
        return await self._wait_in_line(self._draft(event, contents))

    async def prune(self, event: Event, floor: Floor) -> Receipt:
        """Record that a floor rises; what lies below is gone for readers at once, and deleted from the store after.

        That this may be done - retention, holds, two people, an export that verified - is the caller's to know.

        Raises:
            AuditRefused: no whole blocks, not above the floor that is there, or above the log's end.
        """
        return await self._wait_in_line(draft_leaf(bind_floor(event, floor), self._place, floor=floor))

    def close(self) -> Checkpoint:
        """Commit what waits, move the write-ahead log into the main file, let go; return the last durable head."""
        self._line.shut("the log was closed")
        self._thread.join()
        return self._log.checkpoint

    def _draft(self, event: Event, contents: Sequence[SealedContent]) -> DraftLeaf:
        return draft_leaf(bind_contents(event, contents), self._place, contents=contents)

    async def _wait_in_line(self, draft: DraftLeaf) -> Receipt:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Receipt] = loop.create_future()
        self._line.put(LoopWaiter(draft, future, loop))
        return await future

    def _run(self) -> None:
        waiters: list[Waiter] = []
        try:
            while not self._line.ended:
                waiters = self._line.take(self._config.max_batch_len, wait=not self._log.has_pruned_rows)
                if waiters:
                    self._record(waiters)
                if self._log.has_pruned_rows:
                    self._sweep()
            self._log.close_in_order()
            self._state = WriterState.CLOSED
        except AuditHalted as error:
            self._halt(error, waiters)
        except DBAPIError as error:
            self._halt(AuditHalted(f"the database failed: {error.orig}"), waiters)  # without statement and parameters
        except BaseException as error:  # noqa: BLE001 - whatever it was, nothing may be recorded after it
            self._halt(AuditHalted(f"{type(error).__name__}: {error}"), waiters)
        finally:
            self._log.let_go()

    def _record(self, waiters: list[Waiter]) -> None:
        """Guard, plan, commit, answer; the caller halts on anything raised."""
        _require_sound(self._clock_guard.stepped())
        _require_sound(self._log.unsound(self._config.min_free_bytes))
        self._refuse(waiters, self._disagreeing_clocks)
        self._refuse(waiters, self._unfit_floor)
        if not waiters:
            return
        plan = plan_batch(self._log.edge, [waiter.draft for waiter in waiters], self._signers)
        seconds = self._commit(plan)
        answer(waiters, plan.receipts)
        waiters.clear()  # everyone was answered: an error below concerns the next batch
        if self._observe_commit is not None:
            self._observe_commit(seconds, len(plan.receipts))
        self._log.tidy(self._config.wal_move_after_commits)

    def _commit(self, plan: BatchPlan) -> float:
        with self._interruptions() as tell:
            return self._log.extend(plan, patience_s=self._config.patience_s, on_interruption=tell)

    def _sweep(self) -> None:
        with self._interruptions() as tell:
            self._log.sweep(self._config.sweep_len, patience_s=self._config.patience_s, on_interruption=tell)

    @contextmanager
    def _interruptions(self) -> Iterator[Callable[[str], None]]:
        """Tell once when the database went away and once when it is back."""
        interrupted = False

        def tell(reason: str) -> None:
            nonlocal interrupted
            if not interrupted and self._on_interruption is not None:
                self._on_interruption(reason)
            interrupted = True

        yield tell
        if interrupted and self._on_interruption is not None:
            self._on_interruption(None)

    def _refuse(self, waiters: list[Waiter], fault: Callable[[Waiter], str | None]) -> None:
        """Answer those with a fault, and leave the others in the list."""
        faults = [(waiter, fault(waiter)) for waiter in waiters]
        refused = [(waiter, reason) for waiter, reason in faults if reason is not None]
        if refused:  # an exception object each: it collects its waiter's own traceback
            answer([waiter for waiter, _ in refused], [AuditRefused(reason) for _, reason in refused])
            waiters[:] = [waiter for waiter, reason in faults if reason is None]

    def _disagreeing_clocks(self, waiter: Waiter) -> str | None:
        event = waiter.draft.event
        if self._clock_guard.disagrees(event.ts_us, event.monotonic_ns):
            return "the event's two clock readings were not taken together on this machine"
        return None

    def _unfit_floor(self, waiter: Waiter) -> str | None:
        floor = waiter.draft.floor
        return None if floor is None else self._log.raise_floor(floor)

    def _halt(self, error: AuditHalted, unanswered: Sequence[Waiter]) -> None:
        """Stop for good: refuse newcomers first, then tell everyone who was accepted."""
        self._halt_reason = error.reason
        self._state = WriterState.HALTED
        self._line.shut(error.reason)
        answer(unanswered, _one_each(error, len(unanswered)))
        while waiting := self._line.take(self._config.max_batch_len):
            answer(waiting, _one_each(error, len(waiting)))
        if self._on_halt is not None:
            self._on_halt(error.reason)


def _require_sound(reason: str | None) -> None:
    if reason is not None:
        raise AuditHalted(reason)


def _one_each(error: AuditHalted, count: int) -> list[AuditError]:
    """One exception object per waiter: each collects its own traceback."""
    return [AuditHalted(error.reason) for _ in range(count)]
