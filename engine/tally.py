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

    num_steps: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    num_preemptions: int = 0
    num_finished: Counter[str] = field(default_factory=Counter)
    core: CoreStats | None = None

    def count_step(self, core: CoreStats) -> None:
        """A step finished."""
        self.num_steps += 1
        self.core = core

    def count_event(self, event: StepEvent, num_prompt_tokens: int) -> None:
        """An event reached its request."""
        self.num_output_tokens += len(event.token_ids)
        if event.num_cached_tokens is not None:  # the first event of its request
            self.num_prompt_tokens += num_prompt_tokens
            self.num_cached_tokens += event.num_cached_tokens
        if event.finish is not None:
            self.num_finished[event.finish] += 1
            self.num_preemptions += event.num_preemptions

    def stats(self, restarts: int) -> EngineStats:
        """Freeze."""
        return EngineStats(
            num_steps=self.num_steps,
            num_prompt_tokens=self.num_prompt_tokens,
            num_cached_tokens=self.num_cached_tokens,
            num_output_tokens=self.num_output_tokens,
            num_preemptions=self.num_preemptions,
            num_finished=tuple(sorted(self.num_finished.items())),
            restarts=restarts,
            core=self.core,
        )
