"""When a dead engine process is started again, and when not.  Pure: the clock is an argument.

A start that the machine refuses (no descriptor, no memory, no process left) is no death: nothing was started that could
have died, and what the machine refuses now it may grant a moment later.  It is tried again for as long as it takes.

Progress is a request that ran to its own end, or a process that lived for a while; a single step is not, or an engine
that dies in its second step would be restarted for ever.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How long to wait before the next start, and how often."""

    first_delay_s: float = 0.25
    """Before the first restart; doubles with each death without progress."""
    max_delay_s: float = 10.0
    max_deaths_in_row: int = 5
    """So many deaths without progress between them, and the engine is given up."""
    settled_after_s: float = 60.0
    """A process that served for so long has made progress by that alone."""

    def delay_s(self, deaths_in_row: int, *, was_refused: bool = False) -> float | None:
        """Seconds until the next start, or None to give up.

        Args:
            deaths_in_row: deaths since the last progress, this one included; at least 1.
            was_refused: the machine refused the last start.
        """
        if deaths_in_row >= self.max_deaths_in_row:
            return None
        if was_refused:
            return self.max_delay_s
        return min(self.max_delay_s, self.first_delay_s * 2.0 ** (deaths_in_row - 1))

    def deaths_in_row(self, before: int, *, served_for_s: float, finished_requests: int) -> int:
        """Count one more death, from 1 again when the process that died had made progress."""
        made_progress = finished_requests > 0 or served_for_s >= self.settled_after_s
        return 1 if made_progress else before + 1
