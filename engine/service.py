"""The asynchronous client of the engine process, and its supervisor.

Promise: every request that was taken gets its events in order and exactly one that ends it, whatever happens to the
engine process.  When the process dies, requests that had entered a step end with `engine_died`; those that still
waited are handed to the next process in the order they came; the model is verified anew.  Health means that a step
finished recently or nothing is to do, never that a process exists.

Invariants: nothing here blocks the event loop or polls; a slow consumer delays nobody; a request that cannot be sent
fails alone.  Everything belongs to the thread of one event loop, which must outlive the service: the engine process
dies with it.  A process that has work and finishes no step within the stall limit is killed: its death is then like
any other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from engine.config import EngineConfig
from engine.errors import EngineError, EngineLoadError, EngineStopped, QueueFull
from engine.handle import GenerationHandle
from engine.health import EngineExit, EngineHealth, EngineInfo, EngineState, EngineStats, has_progressed
from engine.request import GenerationRequest
from engine.request_book import RequestBook
from engine.stall_watch import StallWatch
from engine.supervision import RestartPolicy
from engine.wire import Add, Cancel, FrameTooLarge, FromWorker, MalformedFrame, Refused, Started, Step, checked_frame
from engine.worker_process import WORKER_COMMAND, DiedLoading, WorkerProcess

__all__ = [
    "EngineError",
    "EngineExit",
    "EngineHealth",
    "EngineInfo",
    "EngineLoadError",
    "EngineService",
    "EngineStats",
    "EngineStopped",
    "GenerationHandle",
    "QueueFull",
    "RestartPolicy",
]

CANCEL_GRACE_S = 5.0
"""From the cancellation of what outlived the drain to the end of the process."""


class EngineService:
    """See the module.  Order of calls: `start`, any number of `submit`, `stop`."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        restart: RestartPolicy | None = None,
        stall_limit_s: float = 30.0,
        on_change: Callable[[EngineHealth], None] | None = None,
        now: Callable[[], float] = time.monotonic,
        utc_s: Callable[[], float] = time.time,
        worker_command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            config: what the engine process serves.
            restart: when a dead process is started again.
            stall_limit_s: longest time one step may take; after it the engine counts as unhealthy and is killed.
            on_change: called on the event loop whenever the state changes; must not raise.
            now: monotonic seconds.
            utc_s: seconds since the epoch.
            worker_command: program of the engine process.
        """
        self._config = config
        self._restart = restart or RestartPolicy()
        self._stall_limit_s = stall_limit_s
        self._on_change = on_change
        self._now = now
        self._utc_s = utc_s
        self._worker_command = tuple(worker_command)
        # Everything below is owned by the event loop.
        self._book = RequestBook(now)
        self._state: EngineState = "stopped"
        self._is_admitting = False
        self._is_stopping = False
        self._worker: WorkerProcess | None = None
        """The present process, loading or ready; None between two."""
        self._starting: asyncio.Task[tuple[WorkerProcess, EngineInfo]] | None = None
        """The first load; done once `start` has returned."""
        self._supervisor: asyncio.Task[None] | None = None
        """Runs from the first success of `start` until `stop` or the last death."""
        self._ready_at = 0.0
        """When the present process was ready."""
        self._last_step_at: float | None = None
        """Of the present process."""
        self._ran_to_end = 0
        """Requests that the present process brought to their own end."""
        self._deaths_in_row = 0
        self._restarts = 0
        self._last_exit: EngineExit | None = None
        self._stall_watch = StallWatch(self._stall_due_in_s, self._is_stalled, self._end_a_stall)

    async def start(self) -> EngineInfo:
        """Start the engine process and wait until the model is verified and loaded; once per service.

        Raises:
            EngineLoadError: it cannot be served; no process is left behind.
            EngineStopped: `stop` came first, or this is not the first call.
        """
        if self._starting is not None or self._is_stopping:
            raise EngineStopped(self._state)
        self._change("loading")
        self._starting = asyncio.create_task(self._launch(), name="engine start")
        try:
            worker, engine_info = await self._starting
        except DiedLoading as died:
            self._last_exit = died.exit
            self._change("failed")
            raise EngineLoadError(died.file, died.reason, died.hint) from None
        except asyncio.CancelledError:
            self._change("stopped")
            if self._is_stopping:
                raise EngineStopped("stopping") from None
            raise
        self._is_admitting = True
        self._begin_serving(worker)
        self._supervisor = asyncio.create_task(self._supervise(worker), name="engine supervisor")
        return engine_info

    def submit(self, request: GenerationRequest) -> GenerationHandle:
        """Queue a request; its id must not be live.

        A request that the engine cannot take is no exception: its handle gives one event with `finish="error"`.

        Raises:
            QueueFull: `max_queue_len` requests wait; nothing is kept.
            EngineStopped: nothing is taken in this state; nothing is kept.
        """
        if not self._is_admitting:
            raise EngineStopped("stopping" if self._is_stopping else self._state)
        if self._book.num_waiting >= self._config.max_queue_len:
            raise QueueFull(self._book.num_waiting)
        request_id = request.request_id
        handle = self._book.open(request, lambda: self._cancel(request_id))
        try:
            frame = checked_frame(Add(request))
        except FrameTooLarge:
            self._book.end(request_id, "error", "request_too_large")
        except MalformedFrame:
            self._book.end(request_id, "error", "malformed_request")
        else:
            if self._state == "ready":
                self._ready_worker.send_frame(frame)
                self._stall_watch.begin()
        return handle

    async def stop(self, drain_deadline_s: float) -> None:
        """Admit nothing, let the live requests end, cancel what is left at the deadline, end the process.

        Safe in every state and more than once.  When it returns, every request has its final event.
        """
        self._is_admitting = False
        self._is_stopping = True
        if self._supervisor is not None and not await self._is_drained_within(drain_deadline_s):
            for request_id in self._book.live_ids():
                self._cancel(request_id)
            await self._is_drained_within(CANCEL_GRACE_S)
        for task in (self._starting, self._supervisor):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        self._stall_watch.end()
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.stop()
        self._book.end_all("cancelled")
        self._change("stopped")

    def health(self) -> EngineHealth:
        """Give the state as of now."""
        now = self._now()
        is_progressing = has_progressed(
            now=now,
            busy_since=self._book.busy_since,
            last_step_at=self._last_step_at,
            stall_limit_s=self._stall_limit_s,
        )
        return EngineHealth(
            state=self._state,
            is_healthy=self._state == "ready" and is_progressing,
            last_step_age_s=None if self._last_step_at is None else now - self._last_step_at,
            busy=self._book.busy_since is not None,
            pid=None if self._worker is None else self._worker.pid,
            restarts=self._restarts,
            last_exit=self._last_exit,
            num_running=self._book.num_running,
            num_waiting=self._book.num_waiting,
        )

    def stats(self) -> EngineStats:
        """Give counters since `start` and the gauges of the last step."""
        return self._book.tally.stats(self._restarts)

    async def _supervise(self, worker: WorkerProcess) -> None:
        """Bury each process that dies and put another in its place, until the policy says enough."""
        try:
            next_worker: WorkerProcess | None = worker
            while next_worker is not None:
                self._bury(await next_worker.wait())
                next_worker = await self._replace()
                if next_worker is not None:
                    self._begin_serving(next_worker)
        finally:
            if not self._is_stopping:  # given up, or an error of ours: nobody may wait for what will not come
                self._give_up()

    async def _replace(self) -> WorkerProcess | None:
        """Start processes, each later than the last, until one has verified and loaded the model; None to give up."""
        while (delay_s := self._restart.delay_s(self._deaths_in_row)) is not None:
            await asyncio.sleep(delay_s)
            self._restarts += 1
            try:
                worker, _ = await self._launch()
            except DiedLoading as died:
                self._last_exit = died.exit
                self._deaths_in_row += 1
            else:
                return worker
        return None

    async def _launch(self) -> tuple[WorkerProcess, EngineInfo]:
        """Start a process and wait for its model.  Raises DiedLoading; then no process is left behind."""
        worker = await WorkerProcess.spawn(
            self._config, on_message=self._take, utc_s=self._utc_s, command=self._worker_command
        )
        self._worker = worker
        try:
            return worker, await worker.load()
        except BaseException:
            self._worker = None
            await worker.destroy()
            raise

    def _begin_serving(self, worker: WorkerProcess) -> None:
        self._ready_at = self._now()
        self._last_step_at = None
        self._ran_to_end = 0
        for request in self._book.hand_over():
            worker.send(Add(request))
        self._change("ready")
        self._stall_watch.begin()

    def _stall_due_in_s(self) -> float | None:
        busy_since = self._book.busy_since
        if busy_since is None or self._state != "ready":
            return None
        since = busy_since if self._last_step_at is None else max(busy_since, self._last_step_at)
        return since + self._stall_limit_s - self._now()

    def _is_stalled(self) -> bool:
        health = self.health()
        return health.state == "ready" and health.busy and not health.is_healthy

    def _end_a_stall(self) -> None:
        self._ready_worker.kill_stalled()

    def _bury(self, end: EngineExit) -> None:
        self._worker = None
        self._stall_watch.end()
        self._last_exit = end
        served_for_s = self._now() - self._ready_at
        self._deaths_in_row = self._restart.deaths_in_row(
            self._deaths_in_row, served_for_s=served_for_s, finished_requests=self._ran_to_end
        )
        self._book.bury_process()
        self._change("restarting")

    def _give_up(self) -> None:
        self._is_admitting = False
        self._book.end_all("error", "engine_failed")
        self._change("failed")

    def _take(self, message: FromWorker) -> None:
        """Apply one message of the present process."""
        match message:
            case Started(request_ids):
                for request_id in request_ids:
                    self._book.start(request_id)
            case Step(events, core_stats):
                self._last_step_at = self._now()
                self._book.tally.core = core_stats
                for event in events:
                    self._ran_to_end += event.finish in ("stop", "length")
                    self._book.deliver(event)
            case Refused(request_id, code):
                self._book.end(request_id, "error", code)
            case _:
                pass  # loading and last words are the process's own business

    def _cancel(self, request_id: str) -> None:
        if not self._book.is_live(request_id):
            return
        if self._state == "ready":
            self._book.cancel(request_id)
            self._ready_worker.send(Cancel(request_id))
        else:
            self._book.end(request_id, "cancelled")

    @property
    def _ready_worker(self) -> WorkerProcess:
        assert self._worker is not None, f"no engine process in state {self._state}"
        return self._worker

    async def _is_drained_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._book.drained.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _change(self, state: EngineState) -> None:
        self._state = state
        if self._on_change is not None:
            self._on_change(self.health())
