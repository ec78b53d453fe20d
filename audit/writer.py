"""The one that appends: a thread that owns the open log, commits whole batches and answers only then.

Promise: a receipt is given only after leaves, tree nodes and a signed checkpoint are durable in one transaction; how
that is done, and the head that is extended, is `open_log`'s.
Concurrent: any thread and any event loop may append; order is the order of acceptance.  Latency: no linger, a batch is
whatever waited while the last one was committed, so an event waits at most two commits.

Fatal, once and for good: any error of a commit (a retry after a failed fsync can falsely succeed), a head on disk that
is not the one in memory, files replaced or removed, too little disk, a clock that was set.  After a failed commit it is
unknown whether the batch is durable; its receipts are never given, and reopening the log tells.

Crash states: before commit nothing of the batch exists; after commit all of it does, acknowledged or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from threading import Thread
from typing import Self

from sqlalchemy.exc import DBAPIError

from audit.batch import plan_batch
from audit.checkpoint import Checkpoint, LogSigner, LogVerifier
from audit.errors import AuditError, AuditHalted, AuditRefused
from audit.event import Event, Receipt
from audit.guards import SYSTEM_CLOCKS, ClockGuard, Clocks, disk_short
from audit.leaf import Place, draft_leaf
from audit.open_log import OpenLog
from audit.waiting import LoopWaiter, ThreadWaiter, Waiter, WaitingLine, answer


@dataclass(frozen=True, slots=True)
class WriterConfig:
    """How one log is written."""

    path: Path
    node_id: str
    boot_id: str
    queue_len: int = 4_096
    max_batch_len: int = 256
    min_free_bytes: int = 256 * 1024 * 1024
    clock_step_limit_us: int = 5_000_000
    wal_move_after_commits: int = 512
    """How many commits collect in the write-ahead log before it is copied into the main file, between two batches."""


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
        clocks: Clocks,
        observe_commit: Callable[[float, int], None] | None,
        on_halt: Callable[[str], None] | None,
    ) -> None:
        self._config = config
        self._signers = tuple(signers)
        self._place = Place(config.node_id, config.boot_id, log.last_epoch + 1)
        self._observe_commit = observe_commit
        self._on_halt = on_halt
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
    ) -> Self:
        """Lock the log, prove its head, and start.

        Args:
            config: how the log is written.
            signers: the log's keys; the first names the log, more than one while a key rotates.
            earlier_verifiers: keys that signed heads before and sign no more.
            clocks: this machine's clocks.
            observe_commit: called in the writer's thread with the seconds and leaves of each commit.
            on_halt: called once, in the writer's thread, with the reason, after everyone waiting was told.
        """
        verifiers = [*(signer.verifier for signer in signers), *earlier_verifiers]
        log = OpenLog.open(config.path, verifiers)
        try:
            return cls(config, log, signers, clocks, observe_commit, on_halt)
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
    def epoch(self) -> int:
        """This opening's number; every leaf carries it."""
        return self._place.epoch

    @property
    def num_waiting(self) -> int:
        """Events accepted and not yet being committed."""
        return len(self._line)

    def submit(self, event: Event) -> Future[Receipt]:
        """Accept an event from any thread; the future gives its receipt or `AuditError`.

        Raises:
            AuditRefused: the event breaks a rule; nothing was recorded.
            AuditQueueFull: too many wait; nothing was recorded.
            AuditHalted: the writer stopped.
        """
        future: Future[Receipt] = Future()
        self._line.put(ThreadWaiter(draft_leaf(event, self._place), future))
        return future

    async def append(self, event: Event) -> Receipt:
        """Accept an event from a coroutine and wait until it is durable; raises as `submit` does.

        Cancelling the coroutine ends the waiting, never the recording.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Receipt] = loop.create_future()
        self._line.put(LoopWaiter(draft_leaf(event, self._place), future, loop))
        return await future

    def close(self) -> Checkpoint:
        """Commit what waits, move the write-ahead log into the main file, let go; return the last durable head."""
        self._line.shut("the log was closed")
        self._thread.join()
        return self._log.checkpoint

    def _run(self) -> None:
        waiters: list[Waiter] = []
        try:
            while waiters := self._line.take(self._config.max_batch_len):
                self._record(waiters)
            self._log.empty_wal()
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
        _require_sound(disk_short(self._config.path.parent, self._config.min_free_bytes))
        _require_sound(self._log.files_replaced())
        accepted = self._refuse_disagreeing_clocks(waiters)
        if not accepted:
            return
        plan = plan_batch(self._log.edge, [waiter.draft for waiter in accepted], self._signers)
        seconds = self._log.extend(plan)
        answer(accepted, plan.receipts)
        waiters.clear()  # everyone was answered: an error below concerns the next batch
        if self._observe_commit is not None:
            self._observe_commit(seconds, len(plan.receipts))
        self._log.move_wal_when_due(self._config.wal_move_after_commits)

    def _refuse_disagreeing_clocks(self, waiters: list[Waiter]) -> list[Waiter]:
        def disagrees(waiter: Waiter) -> bool:
            return self._clock_guard.disagrees(waiter.draft.event.ts_us, waiter.draft.event.monotonic_ns)

        refused = [waiter for waiter in waiters if disagrees(waiter)]
        if not refused:
            return waiters
        reason = "the event's two clock readings were not taken together on this machine"
        answer(refused, [AuditRefused(reason) for _ in refused])  # an exception collects its waiter's own traceback
        waiters[:] = [waiter for waiter in waiters if not disagrees(waiter)]
        return list(waiters)

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
