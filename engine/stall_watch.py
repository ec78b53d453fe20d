"""Notices an engine process that has work and finishes no step.

Promise: `on_stall` is called at most once per `begin`, and only after two looks, a second apart, that both found a
stall: after a pause of our own process, what the engine sent meanwhile is read only after the timers that fell due.
Cost: one timer while there is work; a step costs nothing.  Never: decides what a stall is, or kills by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SECOND_LOOK_S = 1.0


class StallWatch:
    """One watch; owned by the event loop of the service."""

    def __init__(
        self, due_in_s: Callable[[], float | None], is_stalled: Callable[[], bool], on_stall: Callable[[], None]
    ) -> None:
        """Prepare; nothing runs.

        Args:
            due_in_s: seconds until the present work would count as stalled; None while there is none.
            is_stalled: whether it counts as stalled now.
            on_stall: what to do then.
        """
        self._due_in_s = due_in_s
        self._is_stalled = is_stalled
        self._on_stall = on_stall
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Watch for as long as there is work; no effect while it runs."""
        due_in_s = self._due_in_s()
        if self._timer is None and due_in_s is not None:
            self._set(max(due_in_s, 0.0), self._first_look)

    def end(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _first_look(self) -> None:
        self._timer = None
        if self._is_stalled():
            self._set(SECOND_LOOK_S, self._second_look)
        else:
            self.begin()

    def _second_look(self) -> None:
        self._timer = None
        if self._is_stalled():
            self._on_stall()
        else:
            self.begin()

    def _set(self, delay_s: float, look: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, look)
