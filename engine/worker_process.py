"""One engine process as the service sees it: started, talked to, and reaped.

Invariants: every process that is started is waited for; its end is told after its last message; a process that breaks
the protocol is killed; no process is stopped by hope alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.channel import Channel
from engine.config import EngineConfig
from engine.health import EngineExit, EngineInfo
from engine.wire import Configure, Fault, FromWorker, Loaded, LoadFailed, Stop, ToWorker, encode_frame

EXIT_GRACE_S = 5.0
"""From the end of the stream, or the order to stop, to the kill."""

INHERITED_VARIABLES = (
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "MKL_NUM_THREADS",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "PATH",
    "TMPDIR",
    "TRITON_CACHE_DIR",
)
"""What libraries need to find devices, threads and scratch space.  No secret of the API process is among them."""

WAIT_POLICY = "PASSIVE"
"""Engine and API share the cores: a thread that spins at a barrier takes the core from the one it waits for.  On two
busy cores a decode step of 24 layers took 89 ms at best, 585 ms with spinning threads."""

DEATH_HINT = "look for the kernel's out-of-memory messages and the lines that the engine process wrote to stderr"
SPAWN_FAILED = "spawn_failed"
"""Code of an end that never was a process: the machine refused to start one."""
SPAWN_HINT = "raise the limits on processes, memory or open files of the service"

WORKER_COMMAND = (sys.executable, "-P", "-m", "engine.worker")


def worker_environment(parent: Mapping[str, str]) -> dict[str, str]:
    """Give the engine process's whole environment.

    The package's own folder leads the path, so that the process runs the engine that its parent runs.
    """
    inherited = {name: parent[name] for name in INHERITED_VARIABLES if name in parent}
    environment = {"OMP_WAIT_POLICY": WAIT_POLICY, **inherited}
    package_root = str(Path(__file__).resolve().parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package_root, parent.get("PYTHONPATH"))))
    return environment


class DiedLoading(Exception):
    """The process ended before its model was ready."""

    def __init__(self, exit_: EngineExit, file: str, reason: str, hint: str) -> None:
        super().__init__(f"{exit_.code}: {exit_.detail}")
        self.exit = exit_
        self.file = file
        self.reason = reason
        self.hint = hint


class WorkerProcess:
    """Made by `spawn`; owned by the event loop it was made on."""

    def __init__(
        self,
        process: Process,
        sock: socket.socket,
        on_message: Callable[[FromWorker], None],
        utc_s: Callable[[], float],
    ) -> None:
        self._process = process
        self._on_message = on_message
        self._utc_s = utc_s
        self._channel = Channel(sock, on_message=self._take, on_closed=self._end_of_stream)
        self._loaded: asyncio.Future[EngineInfo] = asyncio.get_running_loop().create_future()
        self._last_words: Fault | LoadFailed | None = None
        self._broke_protocol = False
        self._was_stalled = False
        self._stream_ended = asyncio.Event()
        self._reaper = asyncio.create_task(self._reap(), name=f"engine process {process.pid}")
        """Ends with the process, and says how it ended."""

    @classmethod
    async def spawn(
        cls,
        config: EngineConfig,
        *,
        on_message: Callable[[FromWorker], None],
        utc_s: Callable[[], float],
        command: Sequence[str] = WORKER_COMMAND,
    ) -> WorkerProcess:
        """Start a process and send it its configuration.

        Args:
            config: what to serve.
            on_message: called for every message, in order.
            utc_s: seconds since the epoch, for the time of the exit.
            command: the program; the number of the inherited socket and our process id are appended.

        Raises:
            DiedLoading: the system refuses another process.
        """
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise _not_spawned(error, utc_s()) from None
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                str(os.getpid()),
                stdin=DEVNULL,
                stdout=DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=worker_environment(os.environ),
                start_new_session=True,  # Ctrl-C at the terminal reaches the API process alone
            )
        except OSError as error:
            ours.close()
            raise _not_spawned(error, utc_s()) from None
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = cls(process, ours, on_message, utc_s)
        worker.send(Configure(config))
        return worker

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, message: ToWorker) -> None:
        """Send in order.  Raises FrameTooLarge, then nothing was sent."""
        self._channel.send(encode_frame(message))

    def send_frame(self, frame: bytearray) -> None:
        """Send what `checked_frame` gave, in order."""
        self._channel.send(frame)

    async def load(self) -> EngineInfo:
        """Wait until the model is verified and loaded.

        Raises:
            DiedLoading: the process ended instead.
        """
        either: tuple[asyncio.Future[Any], ...] = (self._loaded, self._reaper)
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._loaded.done():
            return self._loaded.result()
        end = self._reaper.result()
        if isinstance(self._last_words, LoadFailed):
            raise DiedLoading(end, self._last_words.file, self._last_words.reason, self._last_words.hint)
        raise DiedLoading(end, "", f"the engine process ended while it loaded ({end.code}: {end.detail})", DEATH_HINT)

    async def wait(self) -> EngineExit:
        """Wait until the process has ended and give the reason; everything it sent has been given out by then."""
        return await asyncio.shield(self._reaper)

    async def stop(self) -> None:
        """Order the end, wait for it, and kill when it does not come."""
        self.send(Stop())
        await asyncio.wait({self._reaper}, timeout=EXIT_GRACE_S)
        await self.destroy()

    async def destroy(self) -> None:
        """Kill and reap; no effect on a process that has ended."""
        self._kill()
        await self.wait()

    def kill_stalled(self) -> None:
        """Kill a process that makes no step; its end says so."""
        self._was_stalled = True
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _take(self, message: FromWorker) -> None:
        match message:
            case Loaded(engine_info) if not self._loaded.done():
                self._loaded.set_result(engine_info)
            case Fault() | LoadFailed():
                self._last_words = message
            case _:
                self._on_message(message)

    def _end_of_stream(self, broke_protocol: bool) -> None:
        self._broke_protocol = broke_protocol
        self._stream_ended.set()

    async def _reap(self) -> EngineExit:
        """Read to the end, then collect the process; one that stays after its stream ended is killed."""
        await self._stream_ended.wait()
        if self._broke_protocol:
            self._kill()
        try:
            status = await asyncio.wait_for(self._process.wait(), EXIT_GRACE_S)
        except TimeoutError:
            self._kill()
            status = await self._process.wait()
        return self._exit(status)

    def _exit(self, status: int) -> EngineExit:
        at = self._utc_s()
        if self._broke_protocol:
            return EngineExit("malformed_frame", "the engine process sent what no engine process sends", at)
        if self._was_stalled:
            return EngineExit("stalled", "no step finished within the stall limit", at)
        match self._last_words:
            case Fault(code, exception, where):
                return EngineExit(code, f"{exception} at {where}" if where else exception, at)
            case LoadFailed(file, reason, _):
                return EngineExit("load_failed", f"{file}: {reason}" if file else reason, at)
        if status < 0:
            return EngineExit("signal", signal.Signals(-status).name, at)
        return EngineExit("exit", f"status {status}", at)


def _not_spawned(error: OSError, at: float) -> DiedLoading:
    """Say that the system refuses another process or socket, which it may grant a moment later."""
    reason = errno.errorcode.get(error.errno or 0, "OSError")
    return DiedLoading(EngineExit(SPAWN_FAILED, reason, at), "", f"no process could be started ({reason})", SPAWN_HINT)
