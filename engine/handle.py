"""One request as its caller sees it: its events in order, the last one with `finish`, and a way to end it early."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from engine.request import NO_USAGE, SequenceUsage, StepEvent


class GenerationHandle:
    """Asynchronous iterator over the events of one request, for one consumer.

    Delivery never waits for the consumer: what it has not read yet is kept, at most one event per output token and
    one that ends it.  A consumer that goes away must call `cancel`, or the request runs to its end unread.
    """

    def __init__(self, request_id: str, cancel: Callable[[], None]) -> None:
        self.request_id = request_id
        self._cancel = cancel
        self._unread: deque[StepEvent] = deque()
        """Owner: event loop.  `deliver` appends, the consumer takes."""
        self._waiter: asyncio.Future[None] | None = None
        """Owner: event loop.  Set while the consumer waits for an event."""
        self._has_ended = False
        """Owner: event loop.  The event with `finish` has been delivered."""
        self._usage = NO_USAGE
        """Owner: event loop.  Of what was delivered until it was claimed."""
        self.is_claimed = False
        """Owner: event loop.  The consumer has taken account; what is delivered now is late."""

    def cancel(self) -> None:
        """End the request at the next step; the final event still comes.  No effect on one that has ended."""
        if not self._has_ended:
            self._cancel()

    def claim(self) -> SequenceUsage:
        """Take account of what was delivered, read or not; every later claim gives the same.

        What comes after it is counted as late: engine and consumer never count one token twice, and none is lost.
        """
        self.is_claimed = True
        return self._usage

    def __aiter__(self) -> GenerationHandle:
        return self

    async def __anext__(self) -> StepEvent:
        while not self._unread:
            if self._has_ended:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError(f"two consumers read request {self.request_id}")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._unread.popleft()

    def deliver(self, event: StepEvent, usage: SequenceUsage = NO_USAGE) -> None:
        """For the service alone: append an event, with what it brings, and wake the consumer."""
        assert not self._has_ended, f"request {self.request_id} has ended and gets {event.finish or 'another event'}"
        if not self.is_claimed:
            self._usage = self._usage.plus(usage)
        self._unread.append(event)
        self._has_ended = event.finish is not None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
