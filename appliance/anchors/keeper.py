"""The attempts of every sink: at once after a start, every minute when the head moved, and once more at the stop.

Each sink has its own task here and its own thread below; no task waits for another's.  An attempt that has not come
back at its deadline counts as failed, and none is begun beside it: what hangs hangs once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from audit.anchoring.head import SignedHead
from audit.anchoring.runner import SinkThread
from audit.anchoring.sink import Anchored, AnchorSink
from audit.errors import AnchorAhead, AnchorFailed, AuditError

LOG = structlog.get_logger("cloister.anchors")
GRACE_S = 0.25
"""A sink ends its own waits at the deadline; so much later it counts as one that hangs."""


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """What is known of one sink."""

    size: int | None = None
    """Of the newest head that it took in this run."""
    taken_at_s: float = 0.0
    """When, in seconds since 1970."""
    num_taken: int = 0
    num_failed: int = 0
    code: str | None = None
    """`anchor_ahead`, `anchor_failed` or `anchor_late`: how the newest attempt failed, if it did."""
    reason: str = ""


class SinkKeeper:
    """Owns one sink's thread and status; on the event loop."""

    def __init__(self, sink: AnchorSink, newest: Callable[[], SignedHead], deadline_s: float) -> None:
        """Take a sink.

        Args:
            sink: whose attempts these are.
            newest: reads the newest signed head; called beside the event loop.
            deadline_s: of one attempt.
        """
        self.name = sink.name
        self.status = SinkStatus()
        self._newest = newest
        self._deadline_s = deadline_s
        self._thread = SinkThread(sink)
        self._pending: asyncio.Future[Anchored] | None = None
        """Of the newest attempt, whether or not anybody still waits for it."""

    async def last_attempt(self) -> None:
        """Let an attempt that runs come back, then offer the newest head; all of it within one deadline."""
        try:
            async with asyncio.timeout(self._deadline_s + GRACE_S):
                if self._pending is not None:
                    await asyncio.wait({self._pending})
                await self.attempt()
        except TimeoutError:
            self._failed("anchor_late", f"the last head was not taken within {self._deadline_s:g} s")

    async def attempt(self) -> None:
        """Offer the newest head, unless the sink has it; whatever comes of it stands in `status` afterwards."""
        if self._thread.is_busy:
            self._failed("anchor_late", f"an attempt has not come back after {self._deadline_s:g} s")
            return
        try:
            head = await asyncio.to_thread(self._newest)
        except Exception as failure:  # noqa: BLE001 - an anchoring that ended would be a silence that nobody notices
            said = str(failure) if isinstance(failure, AuditError) else f"{type(failure).__name__}: {failure}"
            self._failed("anchor_failed", f"the log's head cannot be read: {said}")
            return
        if self.status.code is None and self.status.size == head.checkpoint.size:
            return
        self._pending = asyncio.wrap_future(self._thread.start(head, self._deadline_s))
        self._pending.add_done_callback(_retrieve)
        try:
            async with asyncio.timeout(
                self._deadline_s + GRACE_S
            ):  # `wait_for` loses a cancellation that meets the end
                anchored = await asyncio.shield(self._pending)
        except TimeoutError:
            self._failed("anchor_late", f"no answer within {self._deadline_s:g} s")
        except AnchorAhead as failure:
            self._failed("anchor_ahead", str(failure))
        except AnchorFailed as failure:
            self._failed("anchor_failed", str(failure))
        except Exception as fault:  # noqa: BLE001 - a fault of one sink is that sink's alone, and is said
            self._failed("anchor_failed", f"{type(fault).__name__}: {fault}")
        else:
            taken = self.status.num_taken + 1
            self.status = SinkStatus(anchored.size, time.time(), taken, self.status.num_failed)

    def close(self) -> None:
        """Let the thread go; waits for nothing."""
        self._thread.close()

    def _failed(self, code: str, reason: str) -> None:
        if (code, reason) != (self.status.code, self.status.reason):
            LOG.warning("not_anchored", sink=self.name, code=code, reason=reason)
        self.status = replace(self.status, num_failed=self.status.num_failed + 1, code=code, reason=reason)


class Anchoring:
    """Every sink of this run; begun by `start`, ended by `finish`."""

    def __init__(
        self,
        sinks: Sequence[AnchorSink] = (),
        newest: Callable[[], SignedHead] | None = None,
        *,
        interval_s: float = 60.0,
        deadline_s: float = 10.0,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the sinks; see `SinkKeeper`.  `tell` is called when a status may have changed."""
        assert newest is not None or not sinks, f"{len(sinks)} sinks and no way to read a head"
        self.keepers = tuple(SinkKeeper(sink, newest, deadline_s) for sink in sinks if newest is not None)
        self._interval_s = interval_s
        self._tell = tell
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def start(self) -> None:
        """Begin; once."""
        assert not self._tasks, "anchoring was started before"
        self._tasks = tuple(
            asyncio.create_task(self._run(keeper), name=f"anchor {keeper.name}") for keeper in self.keepers
        )

    async def finish(self) -> None:
        """Offer the last head to all sinks at once, within one deadline, and let them go."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.gather(*(keeper.last_attempt() for keeper in self.keepers))
        for keeper in self.keepers:
            keeper.close()

    async def _run(self, keeper: SinkKeeper) -> None:
        while True:
            await keeper.attempt()
            self._tell()
            await asyncio.sleep(self._interval_s)


def _retrieve(future: asyncio.Future[Anchored]) -> None:
    """Look at what nobody may wait for any more, so that it is not reported as forgotten."""
    if not future.cancelled():
        future.exception()
