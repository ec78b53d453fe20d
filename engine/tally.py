"""What the engine has done since its service started, counted from events so that a restart loses nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from engine.health import EngineStats
from engine.request import StepEvent
from engine.stats import CoreStats


@dataclass(slots=True)
class Tally:
    """Counters that only grow, and the latest gauges.  Owner: the service's event loop."""

    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    num_finished: Counter[str] = field(default_factory=Counter)
    num_steps_before: int = 0
    """Of the processes that died."""
    num_preemptions_before: int = 0
    """Of the processes that died."""
    core: CoreStats | None = None
    """Of the present process."""

    def bury_process(self) -> None:
        """The present process died: keep what its counters had reached."""
        if self.core is not None:
            self.num_steps_before += self.core.num_steps
            self.num_preemptions_before += self.core.num_preemptions
            self.core = None

    def count_event(self, event: StepEvent, num_prompt_tokens: int) -> None:
        """An event reached its request."""
        self.num_output_tokens += len(event.token_ids)
        if event.num_cached_tokens is not None:  # the first event of its request
            self.num_prompt_tokens += num_prompt_tokens
            self.num_cached_tokens += event.num_cached_tokens
        if event.finish is not None:
            self.num_finished[event.finish] += 1

    def stats(self, restarts: int) -> EngineStats:
        """Freeze."""
        return EngineStats(
            num_steps=self.num_steps_before + (self.core.num_steps if self.core else 0),
            num_prompt_tokens=self.num_prompt_tokens,
            num_cached_tokens=self.num_cached_tokens,
            num_output_tokens=self.num_output_tokens,
            num_preemptions=self.num_preemptions_before + (self.core.num_preemptions if self.core else 0),
            num_finished=tuple(sorted(self.num_finished.items())),
            restarts=restarts,
            core=self.core,
        )
