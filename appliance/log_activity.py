"""What the log has been doing since this start: the figures that no table holds.

Commits are told by the writer's thread, waits by the event loop; each field has one of them as its only writer, and
whoever reads takes what is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Commit:
    """The newest one."""

    at_us: int
    """UTC."""
    seconds: float
    num_leaves: int


class LogActivity:
    """One per run."""

    def __init__(self, utc_us: Callable[[], int] = lambda: time.time_ns() // 1_000) -> None:
        self._utc_us = utc_us
        self._listeners: tuple[Callable[[], None], ...] = ()
        self.newest_commit: Commit | None = None
        """Owner: the writer's thread."""
        self.num_commits = 0
        """Owner: the writer's thread."""
        self.longest_wait_s = 0.0
        """Longest wait of one event until it was durable.  Owner: the event loop."""

    def listen(self, on_commit: Callable[[], None]) -> None:
        """Call this after every commit, in the writer's thread: it must neither wait nor raise."""
        self._listeners = (*self._listeners, on_commit)

    def committed(self, seconds: float, num_leaves: int) -> None:
        """Note a commit; the writer's thread."""
        self.newest_commit = Commit(self._utc_us(), seconds, num_leaves)
        self.num_commits += 1
        for on_commit in self._listeners:
            on_commit()

    def waited(self, seconds: float) -> None:
        """Note how long an event waited; the event loop."""
        self.longest_wait_s = max(self.longest_wait_s, seconds)
