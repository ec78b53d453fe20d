"""What an operator must hear of the log between two requests, looked at every few seconds and when something changed.

Promise: a look never raises and never keeps the next one away; what could not be recorded is tried again at the next
look.  Each examiner owns what it remembers of its own subject.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from audit.errors import AuditError

LOG = structlog.get_logger("cloister.log")
PACE_S = 5.0


class Examiner(Protocol):
    """One subject that is looked at."""

    async def examine(self) -> None:
        """Look, and record what changed.

        Raises:
            AuditError: not recorded, or the log could not be asked; the next look tries again.
        """
        ...


class LogWatch:
    """One task on the event loop; begun by `start`, ended by `close`."""

    def __init__(self, pace_s: float = PACE_S) -> None:
        self._pace_s = pace_s
        self._nudged = asyncio.Event()
        self._examiners: tuple[Examiner, ...] = ()
        self._task: asyncio.Task[None] | None = None

    def start(self, examiners: Sequence[Examiner]) -> None:
        """Begin to look; once."""
        assert self._task is None, "the watch was started before"
        self._examiners = tuple(examiners)
        self._task = asyncio.create_task(self._run(), name="log watch")

    def nudge(self) -> None:
        """Look now; on the event loop, also before the start."""
        self._nudged.set()

    async def close(self) -> None:
        """Stop looking; a look that runs is ended, what it was recording is recorded all the same."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> None:
        """Look at every subject once."""
        for examiner in self._examiners:
            try:
                await examiner.examine()
            except Exception as failure:  # noqa: BLE001 - a watch that ended would be a silence that nobody notices
                is_known = isinstance(failure, (AuditError, OSError))  # a message of a library may hold anything
                LOG.warning(
                    "not_examined",
                    subject=type(examiner).__name__,
                    error=type(failure).__name__,
                    reason=str(failure) if is_known else "",
                )

    async def _run(self) -> None:
        while True:
            await self.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace_s):  # `wait_for` loses a cancellation that meets a nudge
                    await self._nudged.wait()
            self._nudged.clear()
