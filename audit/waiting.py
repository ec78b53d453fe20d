"""The bounded line in front of the writer, and the ways to wait in it: a thread's future or a coroutine's.

Invariant: an event that was accepted is answered exactly once, with a receipt or an error, whatever happens to whoever
waits.  Coroutines of one event loop are answered with one wake-up per batch, not one per event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from threading import Condition
from typing import TypeAlias

from audit.errors import AuditError, AuditHalted, AuditQueueFull
from audit.event import Receipt
from audit.leaf import DraftLeaf

Answer: TypeAlias = "Receipt | AuditError"


@dataclass(frozen=True, slots=True)
class ThreadWaiter:
    """Waits with a `concurrent.futures.Future`."""

    draft: DraftLeaf
    future: Future[Receipt]


@dataclass(frozen=True, slots=True)
class LoopWaiter:
    """Waits with a future of an event loop, which only that loop's thread may touch."""

    draft: DraftLeaf
    future: asyncio.Future[Receipt]
    loop: asyncio.AbstractEventLoop


Waiter: TypeAlias = "ThreadWaiter | LoopWaiter"


class WaitingLine:
    """Accepts from any thread, drains to one; once shut it accepts nothing."""

    def __init__(self, max_len: int) -> None:
        self._max_len = max_len
        # Guarded by the condition:
        self._condition = Condition()
        self._waiters: deque[Waiter] = deque()
        self._shut_because: str | None = None

    def __len__(self) -> int:
        return len(self._waiters)

    def put(self, waiter: Waiter) -> None:
        """Accept, or raise why not; never blocks."""
        with self._condition:
            if self._shut_because is not None:
                raise AuditHalted(self._shut_because)
            if len(self._waiters) >= self._max_len:
                raise AuditQueueFull(self._max_len)
            self._waiters.append(waiter)
            self._condition.notify()

    @property
    def ended(self) -> bool:
        """Whether the line is shut and everyone was taken."""
        with self._condition:
            return self._shut_because is not None and not self._waiters

    def take(self, max_len: int, *, wait: bool = True) -> list[Waiter]:
        """Take at most `max_len`, waiting for company unless told not to; empty then, or when the line has ended."""
        with self._condition:
            while wait and not self._waiters and self._shut_because is None:
                self._condition.wait()
            return [self._waiters.popleft() for _ in range(min(max_len, len(self._waiters)))]

    def shut(self, reason: str) -> None:
        """Accept no more: newcomers are refused, who waits already is still served.  The first reason stays."""
        with self._condition:
            if self._shut_because is None:
                self._shut_because = reason
            self._condition.notify_all()


def answer(waiters: Sequence[Waiter], answers: Sequence[Answer]) -> None:
    """Give each waiter its answer; one that no longer waits is passed over, its event stands."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Receipt], Answer]]] = {}
    for waiter, given in zip(waiters, answers, strict=True):
        if isinstance(waiter, LoopWaiter):
            by_loop.setdefault(waiter.loop, []).append((waiter.future, given))
            continue
        with suppress(InvalidStateError):  # cancelled between the check and the answer
            if isinstance(given, Receipt):
                waiter.future.set_result(given)
            else:
                waiter.future.set_exception(given)
    for loop, pairs in by_loop.items():
        with suppress(RuntimeError):  # that loop is closed: nobody is left to be told
            loop.call_soon_threadsafe(_answer_in_loop, pairs)


def _answer_in_loop(pairs: Sequence[tuple[asyncio.Future[Receipt], Answer]]) -> None:
    for future, given in pairs:
        if future.done():
            continue
        if isinstance(given, Receipt):
            future.set_result(given)
        else:
            future.set_exception(given)
