"""The asynchronous client of the engine process: requests in, their events out.

Promise: every request that was taken gets its events in order and exactly one that ends it, whatever happens to the
engine process.  When the process dies, requests that had entered a step end with `engine_died`; those that still
waited are handed to the next process in the order they came.  Health means that a step finished recently or nothing is
to do, never that a process exists.

Invariants: nothing here blocks the event loop or polls; a slow consumer delays nobody; a request that cannot be sent
fails alone.  Owner of the requests is `RequestBook`, of the process `Supervisor`; both belong to the thread of one
event loop, which must outlive the service: the engine process dies with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from engine.config import EngineConfig
from engine.errors import EngineStopped, QueueFull
from engine.handle import GenerationHandle
from engine.health import EngineHealth, EngineInfo, EngineStats
from engine.request import GenerationRequest
from engine.request_book import RequestBook
from engine.supervision import RestartPolicy
from engine.supervisor import Supervisor
from engine.wire import Add, Cancel, FrameTooLarge, FromWorker, MalformedFrame, Refused, Started, Step, checked_frame
from engine.worker_process import WORKER_COMMAND

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
        self._max_queue_len = config.max_queue_len
        self._on_change = on_change
        self._now = now
        self._book = RequestBook(now)
        self._loaded: EngineInfo | None = None
        """Set once, by `start`."""
        self._supervisor = Supervisor(
            config,
            restart=restart or RestartPolicy(),
            stall_limit_s=stall_limit_s,
            busy_since=lambda: self._book.busy_since,
            on_message=self._take,
            on_state=self._follow,
            now=now,
            utc_s=utc_s,
            worker_command=worker_command,
        )

    async def start(self) -> EngineInfo:
        """Start the engine process and wait until the model is verified and loaded; once per service.

        Raises:
            EngineLoadError: it cannot be served; no process is left behind.
            EngineStopped: `stop` came first, or this is not the first call.
        """
        self._loaded = await self._supervisor.start()
        return self._loaded

    def submit(self, request: GenerationRequest) -> GenerationHandle:
        """Queue a request; its id must not be live.

        A request that the engine cannot take is no exception: its handle gives one event with `finish="error"`.

        Raises:
            QueueFull: `max_queue_len` requests wait; nothing is kept.
            EngineStopped: nothing is taken in this state; nothing is kept.
        """
        self._check_admitting()
        if self._book.num_waiting >= self._max_queue_len:
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
            if self._supervisor.state == "ready":
                self._supervisor.send_work(frame)
        return handle

    async def stop(self, drain_deadline_s: float) -> None:
        """Admit nothing, let the live requests end, cancel what is left at the deadline, end the process.

        Safe in every state and more than once.  When it returns, every request has its final event.
        """
        self._supervisor.announce_stop()
        if not await self._is_drained_within(drain_deadline_s):
            for request_id in self._book.live_ids():
                self._cancel(request_id)
            await self._is_drained_within(CANCEL_GRACE_S)
        await self._supervisor.stop()

    def health(self) -> EngineHealth:
        """Give the state as of now."""
        supervisor = self._supervisor
        last_step_at = supervisor.last_step_at
        return EngineHealth(
            state=supervisor.state,
            is_healthy=supervisor.state == "ready" and supervisor.is_progressing(),
            last_step_age_s=None if last_step_at is None else self._now() - last_step_at,
            busy=self._book.busy_since is not None,
            pid=supervisor.pid,
            restarts=supervisor.restarts,
            last_exit=supervisor.last_exit,
            num_running=self._book.num_running,
            num_waiting=self._book.num_waiting,
        )

    def stats(self) -> EngineStats:
        """Give counters since `start` and the gauges of the last step."""
        return self._book.tally.stats(
            restarts=self._supervisor.restarts, num_live=self._book.num_live, loaded=self._loaded
        )

    def _check_admitting(self) -> None:
        state = self._supervisor.state
        if self._supervisor.is_stopping:
            raise EngineStopped("stopping")
        if state not in {"ready", "restarting"}:
            raise EngineStopped(state)

    def _follow(self) -> None:
        """Give every request what a change of the engine's state means for it, then tell the owner."""
        match self._supervisor.state:
            case "ready":
                for request in self._book.hand_over():
                    self._supervisor.send(Add(request))
            case "restarting":
                self._book.bury_process()
            case "failed":
                self._book.end_all("error", "engine_failed")
            case "stopped":
                self._book.end_all("cancelled")
            case "loading":
                pass  # nothing was taken yet
        if self._on_change is not None:
            self._on_change(self.health())

    def _take(self, message: FromWorker) -> None:
        """Give every request what a message of the present process says of it."""
        match message:
            case Started(request_ids):
                for request_id in request_ids:
                    self._book.start(request_id)
            case Step(events, core_stats):
                self._book.tally.take_step(core_stats)
                for event in events:
                    self._book.deliver(event)
            case Refused(request_id, code):
                self._book.end(request_id, "error", code)
            case _:
                pass  # loading and last words are the process's own business

    def _cancel(self, request_id: str) -> None:
        if not self._book.is_live(request_id):
            return
        if self._supervisor.state == "ready":
            self._book.cancel(request_id)
            self._supervisor.send(Cancel(request_id))
        else:
            self._book.end(request_id, "cancelled")

    async def _is_drained_within(self, seconds: float) -> bool:
        if self._book.drained.is_set():
            return True
        try:
            await asyncio.wait_for(self._book.drained.wait(), seconds)
        except TimeoutError:
            return False
        return True
