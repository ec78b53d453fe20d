"""Which requests live, which of them have started, and the one place where an event reaches a request.

Invariants: a request has exactly one event with `finish`, and it is its last; events of ids that do not live are
dropped, their requests have ended while the event was under way.  Owner: the service's event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from engine.handle import GenerationHandle
from engine.request import FinishReason, GenerationRequest, SequenceUsage, StepEvent
from engine.tally import Tally


@dataclass(slots=True)
class LiveRequest:
    """A request that has not ended."""

    request: GenerationRequest
    handle: GenerationHandle
    submitted_at: float
    handed_over_at: float
    """When the present engine process got it, or will have got it."""
    is_started: bool = False
    """It has entered a step; it will not be tried again."""
    is_cancelled: bool = False
    """The caller no longer wants it; the final event has not come yet."""


class RequestBook:
    """The live requests in the order they came."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._live: dict[str, LiveRequest] = {}
        self._num_running = 0
        """Of the live ones, those that have started."""
        self.tally = Tally()
        self.busy_since: float | None = None
        """Since when the present engine process has had something to do; None while nothing lives."""
        self.drained = asyncio.Event()
        """Set exactly while nothing lives."""
        self.drained.set()

    @property
    def num_running(self) -> int:
        """Live requests that have entered a step."""
        return self._num_running

    @property
    def num_live(self) -> int:
        """Requests that have not ended."""
        return len(self._live)

    @property
    def num_waiting(self) -> int:
        """Live requests that have not."""
        return len(self._live) - self._num_running

    def open(self, request: GenerationRequest, cancel: Callable[[], None]) -> GenerationHandle:
        """Enter a request.

        Raises:
            ValueError: one with this id lives already.
        """
        request_id = request.request_id
        if request_id in self._live:
            raise ValueError(f"request {request_id} is live already")
        now = self._now()
        handle = GenerationHandle(request_id, cancel)
        self._live[request_id] = LiveRequest(request, handle, submitted_at=now, handed_over_at=now)
        self.drained.clear()
        if self.busy_since is None:
            self.busy_since = now
        return handle

    def start(self, request_id: str) -> None:
        """The request enters a step."""
        live = self._live.get(request_id)
        if live is not None and not live.is_started:
            live.is_started = True
            self._num_running += 1

    def is_live(self, request_id: str) -> bool:
        """Whether its final event is still to come."""
        return request_id in self._live

    def cancel(self, request_id: str) -> None:
        """Note that nobody wants it any more: it will not survive the present process."""
        live = self._live.get(request_id)
        if live is not None:
            live.is_cancelled = True

    def deliver(self, event: StepEvent) -> None:
        """Pass an event on; the final one closes the request."""
        live = self._live.get(event.request_id)
        if live is None:
            return
        waited_before_s = live.handed_over_at - live.submitted_at
        if event.queue_time_s is not None and waited_before_s > 0:  # the process counts from its own receipt
            event = dataclasses.replace(event, queue_time_s=event.queue_time_s + waited_before_s)
        num_prompt_tokens = len(live.request.token_ids)
        self.tally.count_event(event, num_prompt_tokens, is_late=live.handle.is_claimed)
        if event.finish is not None:
            self._close(live)
        live.handle.deliver(event, SequenceUsage.of_event(event, num_prompt_tokens))

    def end(self, request_id: str, finish: FinishReason, error: str | None = None) -> None:
        """Give a live request a final event of our own."""
        self.deliver(StepEvent(request_id, finish=finish, error=error))

    def end_all(self, finish: FinishReason, error: str | None = None) -> None:
        """Give every live request a final event of our own."""
        for request_id in tuple(self._live):
            self.end(request_id, finish, error)

    def live_ids(self) -> tuple[str, ...]:
        """Ids in order of submission."""
        return tuple(self._live)

    def bury_process(self) -> None:
        """The process died: end what had started or is not wanted any more, keep the rest."""
        for request_id, live in tuple(self._live.items()):
            if live.is_cancelled:
                self.end(request_id, "cancelled")
            elif live.is_started:
                self.end(request_id, "error", "engine_died")
        self.tally.bury_process()

    def hand_over(self) -> tuple[GenerationRequest, ...]:
        """A new process is ready: give it what waits, in order."""
        now = self._now()
        self.busy_since = now if self._live else None
        for live in self._live.values():
            live.handed_over_at = now
        return tuple(live.request for live in self._live.values())

    def _close(self, live: LiveRequest) -> None:
        del self._live[live.request.request_id]
        self._num_running -= live.is_started
        if not self._live:
            self.busy_since = None
            self.drained.set()
