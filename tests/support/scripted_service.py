"""A service around `scripted_worker`, with the means to decide how many steps its engine process makes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import scripted_worker

from engine.config import EngineConfig
from engine.handle import GenerationHandle
from engine.health import EngineHealth, EngineState
from engine.request import GenerationRequest, SamplingParams, StepEvent
from engine.service import EngineService
from engine.supervision import RestartPolicy

AT_ONCE = RestartPolicy(first_delay_s=0.0, max_delay_s=0.0, max_deaths_in_row=3)


def ask(request_id: str, *token_ids: int, max_tokens: int = 4) -> GenerationRequest:
    """A request for the scripted core; the token after the last one of the prompt comes first."""
    return GenerationRequest(request_id, token_ids or (1,), SamplingParams(max_tokens=max_tokens))


async def read(handle: GenerationHandle) -> list[StepEvent]:
    """Everything that a request gets, which ends with the only event that has `finish`."""
    events = [event async for event in handle]
    assert [event.finish is not None for event in events] == [False] * (len(events) - 1) + [True]
    return events


def tokens(events: Sequence[StepEvent]) -> list[int]:
    """The output tokens, in order."""
    return [token_id for event in events for token_id in event.token_ids]


def sockets_of(pid: int) -> tuple[set[str], set[str]]:
    """Inodes of a process's sockets, and those of all internet sockets in its network namespace."""
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    tables = [Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6", "udp", "udp6")]
    rows = [row for table in tables if table.exists() for row in table.read_text().splitlines()[1:]]
    return {link[8:-1] for link in links if link.startswith("socket:")}, {row.split()[9] for row in rows}


class Scripted:
    """A service, its steps and what it said of its state."""

    def __init__(self, folder: Path, *, gated: bool, now: Callable[[], float] | None, **config: int) -> None:
        self.folder = folder
        self._states: asyncio.Queue[EngineHealth] = asyncio.Queue()
        self._permits: int | None = None
        if gated:
            os.mkfifo(folder / "permits")
            self._permits = os.open(folder / "permits", os.O_RDWR)
        clock = {} if now is None else {"now": now}
        self.service = EngineService(
            EngineConfig(model_dir=str(folder), file_digests=(), **config),
            restart=AT_ONCE,
            on_change=self._states.put_nowait,
            worker_command=scripted_worker.COMMAND,
            **clock,
        )

    def permit(self, num_steps: int) -> None:
        """Let the engine process make so many steps."""
        assert self._permits is not None, "not gated"
        os.write(self._permits, b"s" * num_steps)

    def kill(self) -> None:
        """Kill -9 of the present engine process."""
        pid = self.service.health().pid
        assert pid is not None
        os.kill(pid, 9)

    async def reach(self, state: EngineState) -> EngineHealth:
        """Wait until the service says that it is in this state; states said before are passed over."""
        while (health := await self._states.get()).state != state:
            pass
        return health

    def close(self) -> None:
        """Give the FIFO back."""
        if self._permits is not None:
            os.close(self._permits)


@asynccontextmanager
async def scripted(
    folder: Path, *, gated: bool = False, now: Callable[[], float] | None = None, **config: int
) -> AsyncIterator[Scripted]:
    """A started service; stopped at the end whatever happened.

    Args:
        folder: empty, of this test alone.
        gated: each step waits for `permit`.
        now: the service's clock.
        config: fields of `EngineConfig`.
    """
    scripted_ = Scripted(folder, gated=gated, now=now, **config)
    try:
        await scripted_.service.start()
        await scripted_.reach("ready")
        yield scripted_
    finally:
        if gated:
            scripted_.permit(10_000)
        await scripted_.service.stop(0.0)
        scripted_.close()
