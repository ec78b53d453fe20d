"""What the engine has done since its service started, counted so that a restart loses nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from engine.health import EngineInfo, EngineStats
from engine.request import NAN_LOGITS, NO_USAGE, SequenceUsage, StepEvent
from engine.stats import CoreCounts, CoreStats


@dataclass(slots=True)
class Tally:
    """Counters that only grow, and the latest gauges.  Owner: the service's event loop."""

    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_last_tokens_recomputed: int = 0
    num_output_tokens: int = 0
    late: SequenceUsage = NO_USAGE
    """Of those tokens, what came after its consumer had taken account."""
    num_nan_logits: int = 0
    num_finished: Counter[str] = field(default_factory=Counter)
    steps_by_tokens: Counter[int] = field(default_factory=Counter)
    """Tokens computed in one step -> steps; at most as many entries as a step may compute tokens."""
    counts_before: CoreCounts = field(default_factory=CoreCounts)
    """Of the processes that died."""
    core: CoreStats | None = None
    """Of the present process."""

    def take_step(self, core: CoreStats) -> None:
        """The present process made a step, or tells more of the step it told of last."""
        is_new = self.core is None or core.num_steps > self.core.num_steps
        if is_new and core.last_iteration_tokens:
            self.steps_by_tokens[core.last_iteration_tokens] += 1
        self.core = core

    def bury_process(self) -> None:
        """The present process died: keep what its counters had reached."""
        self.counts_before = self.counts_before.plus(self.core)
        self.core = None

    def count_event(self, event: StepEvent, num_prompt_tokens: int, *, is_late: bool = False) -> None:
        """An event reached its request; `is_late` when its consumer has taken account already."""
        if is_late:
            self.late = self.late.plus(SequenceUsage.of_event(event, num_prompt_tokens))
        self.num_output_tokens += len(event.token_ids)
        if event.num_cached_tokens is not None:  # the first event of its request
            self.num_prompt_tokens += num_prompt_tokens
            self.num_cached_tokens += event.num_cached_tokens
            self.num_last_tokens_recomputed += event.num_cached_tokens + 1 == num_prompt_tokens
        if event.finish is not None:
            self.num_finished[event.finish] += 1
            self.num_nan_logits += event.error == NAN_LOGITS

    def stats(self, *, restarts: int, num_live: int, loaded: EngineInfo | None) -> EngineStats:
        """Freeze.

        Args:
            restarts: processes that were started after the first.
            num_live: requests that have not ended.
            loaded: what the first process loaded.
        """
        num_running = self.core.num_running if self.core else 0
        return EngineStats(
            num_prompt_tokens=self.num_prompt_tokens,
            num_cached_tokens=self.num_cached_tokens,
            num_last_tokens_recomputed=self.num_last_tokens_recomputed,
            num_output_tokens=self.num_output_tokens,
            late=self.late,
            num_nan_logits=self.num_nan_logits,
            num_finished=tuple(sorted(self.num_finished.items())),
            counts=self.counts_before.plus(self.core),
            steps_by_tokens=tuple(sorted(self.steps_by_tokens.items())),
            restarts=restarts,
            num_running=num_running,
            num_waiting=max(0, num_live - num_running),
            core=self.core,
            loaded=loaded,
        )
