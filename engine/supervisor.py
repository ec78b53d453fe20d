"""The engine process that serves now, and the next one when it dies.

Promise: at most one process at a time; each one has verified and loaded the model before it serves; one that dies, or
has work and finishes no step within the stall limit, is buried and replaced as long as the restart policy says so; a
start that the machine refuses is repeated until it is granted; after `stop` none is left.  Every change of state is
told once it is true.

Never: knows which requests live.  What must be sent to the next process is for the owner to say, when it hears that one
is ready.  Everything belongs to the thread of one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from engine.config import EngineConfig
from engine.errors import EngineLoadError, EngineStopped
from engine.health import EngineExit, EngineInfo, EngineState, has_progressed
from engine.stall_watch import StallWatch
from engine.supervision import RestartPolicy
from engine.wire import FromWorker, Step, ToWorker
from engine.worker_process import SPAWN_FAILED, DiedLoading, WorkerProcess


class Supervisor:
    """See the module.  Order of calls: `start` once, `send` while ready, `stop`."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        restart: RestartPolicy,
        stall_limit_s: float,
        busy_since: Callable[[], float | None],
        on_message: Callable[[FromWorker], None],
        on_state: Callable[[], None],
        now: Callable[[], float],
        utc_s: Callable[[], float],
        worker_command: Sequence[str],
    ) -> None:
        """Prepare; nothing is started.

        Args:
            config: what the engine process serves.
            restart: when a dead process is started again.
            stall_limit_s: longest time one step may take.
            busy_since: since when the present process has had something to do; None while it has nothing.
            on_message: called for every message of a process, in order.
            on_state: called after every change of `state`; what it sends on "ready" comes first.  Must not raise.
            now: monotonic seconds.
            utc_s: seconds since the epoch.
            worker_command: program of the engine process.
        """
        self._config = config
        self._restart = restart
        self._stall_limit_s = stall_limit_s
        self._busy_since = busy_since
        self._on_message = on_message
        self._on_state = on_state
        self._now = now
        self._utc_s = utc_s
        self._worker_command = tuple(worker_command)
        # Everything below is owned by the event loop.
        self.state: EngineState = "stopped"
        self.is_stopping = False
        """The end was announced: nobody is told any more that the engine is given up."""
        self.last_exit: EngineExit | None = None
        """The last unordered end, or why no process could be started in its place."""
        self.last_step_at: float | None = None
        """Of the present process."""
        self._num_started = 0
        """Processes so far."""
        self._worker: WorkerProcess | None = None
        """The present process, loading or ready; None between two."""
        self._starting: asyncio.Task[tuple[WorkerProcess, EngineInfo]] | None = None
        """The first load; done once `start` has returned."""
        self._supervising: asyncio.Task[None] | None = None
        """Runs from the first success of `start` until `stop` or the last death."""
        self._ready_at = 0.0
        """When the present process was ready."""
        self._ran_to_end = 0
        """Requests that the present process brought to their own end."""
        self._deaths_in_row = 0
        self._stall_watch = StallWatch(self._stall_due_in_s, self._is_stalled, self._end_a_stall)

    @property
    def restarts(self) -> int:
        """Processes that were started after the first."""
        return max(0, self._num_started - 1)

    @property
    def pid(self) -> int | None:
        """Of the present process."""
        return None if self._worker is None else self._worker.pid

    async def start(self) -> EngineInfo:
        """Start the first process and wait until the model is verified and loaded; once per supervisor.

        Raises:
            EngineLoadError: it cannot be served; no process is left behind.
            EngineStopped: the end was announced first, or this is not the first call.
        """
        if self._starting is not None or self.is_stopping:
            raise EngineStopped(self.state)
        self._change("loading")
        self._starting = asyncio.create_task(self._launch(), name="engine start")
        try:
            worker, engine_info = await self._starting
        except DiedLoading as died:
            self.last_exit = died.exit
            self._change("failed")
            raise EngineLoadError(died.file, died.reason, died.hint) from None
        except asyncio.CancelledError:
            self._change("stopped")
            if self.is_stopping:
                raise EngineStopped("stopping") from None
            raise
        if self.is_stopping:  # the order came with the last byte of the load: `stop` ends the process
            raise EngineStopped("stopping")
        self._begin_serving()
        self._supervising = asyncio.create_task(self._supervise(worker), name="engine supervisor")
        return engine_info

    def send(self, message: ToWorker) -> None:
        """Send to the process that is ready, in order.  Raises FrameTooLarge, then nothing was sent."""
        self._ready_worker.send(message)

    def send_work(self, frame: bytearray) -> None:
        """Send new work, as `checked_frame` gave it, to the process that is ready, and watch that it gets done."""
        self._ready_worker.send_frame(frame)
        self._stall_watch.begin()

    def is_progressing(self) -> bool:
        """Whether a step finished within the stall limit, or nothing is to do."""
        return has_progressed(
            now=self._now(),
            busy_since=self._busy_since(),
            last_step_at=self.last_step_at,
            stall_limit_s=self._stall_limit_s,
        )

    def announce_stop(self) -> None:
        """Say that `stop` will come; until then the present process, and its replacement, go on."""
        self.is_stopping = True

    async def stop(self) -> None:
        """End the process.  Safe in every state and more than once."""
        self.announce_stop()
        for task in (self._starting, self._supervising):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        self._stall_watch.end()
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.stop()
        self._change("stopped")

    async def _supervise(self, worker: WorkerProcess) -> None:
        """Bury each process that dies and put another in its place, until the policy says enough."""
        try:
            next_worker: WorkerProcess | None = worker
            while next_worker is not None:
                self._bury(await next_worker.wait())
                next_worker = await self._replace()
                if next_worker is not None:
                    self._begin_serving()
        finally:
            if not self.is_stopping:  # given up, or an error of ours: nobody may wait for what will not come
                self._change("failed")

    async def _replace(self) -> WorkerProcess | None:
        """Start processes, each later than the last, until one has verified and loaded the model; None to give up."""
        was_refused = False
        while (delay_s := self._restart.delay_s(self._deaths_in_row, was_refused=was_refused)) is not None:
            await asyncio.sleep(delay_s)
            try:
                worker, _ = await self._launch()
            except DiedLoading as died:
                self.last_exit = died.exit
                was_refused = died.exit.code == SPAWN_FAILED
                if not was_refused:
                    self._deaths_in_row += 1
            else:
                return worker
        return None

    async def _launch(self) -> tuple[WorkerProcess, EngineInfo]:
        """Start a process and wait for its model.  Raises DiedLoading; then no process is left behind."""
        worker = await WorkerProcess.spawn(
            self._config, on_message=self._take, utc_s=self._utc_s, command=self._worker_command
        )
        self._num_started += 1
        self._worker = worker
        try:
            return worker, await worker.load()
        except BaseException:
            self._worker = None
            await worker.destroy()
            raise

    def _begin_serving(self) -> None:
        self._ready_at = self._now()
        self.last_step_at = None
        self._ran_to_end = 0
        self._change("ready")
        self._stall_watch.begin()

    def _bury(self, end: EngineExit) -> None:
        self._worker = None
        self._stall_watch.end()
        self.last_exit = end
        served_for_s = self._now() - self._ready_at
        self._deaths_in_row = self._restart.deaths_in_row(
            self._deaths_in_row, served_for_s=served_for_s, finished_requests=self._ran_to_end
        )
        self._change("restarting")

    def _take(self, message: FromWorker) -> None:
        """Note what a step says of the process, and pass every message on."""
        if isinstance(message, Step):
            self.last_step_at = self._now()
            self._ran_to_end += sum(event.finish in ("stop", "length") for event in message.events)
        self._on_message(message)

    def _stall_due_in_s(self) -> float | None:
        busy_since = self._busy_since()
        if busy_since is None or self.state != "ready":
            return None
        since = busy_since if self.last_step_at is None else max(busy_since, self.last_step_at)
        return since + self._stall_limit_s - self._now()

    def _is_stalled(self) -> bool:
        return self.state == "ready" and not self.is_progressing()

    def _end_a_stall(self) -> None:
        self._ready_worker.kill_stalled()

    @property
    def _ready_worker(self) -> WorkerProcess:
        assert self._worker is not None, f"no engine process in state {self.state}"
        return self._worker

    def _change(self, state: EngineState) -> None:
        self.state = state
        self._on_state()
