"""The core's gauges and counters after a step: what an operator watches of memory and planning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CoreStats:
    """As of one moment between two steps.  Counters count from the start of this core."""

    # gauges
    num_running: int
    num_waiting: int
    num_pages: int
    num_free_pages: int
    num_cached_pages: int
    """Held by the prefix tree alone; given up when pages run short."""
    kv_usage_perc: float = 0.0
    """Pages that live sequences hold, of all pages; 0 to 1."""
    kv_waste_perc: float = 0.0
    """Unused token slots in the pages that live sequences hold, of all slots of those pages; 0 to 1."""

    # counters
    num_steps: int = 0
    last_iteration_tokens: int = 0
    """Tokens that the latest step computed; a gauge of the latest step."""
    prefix_cache_query_tokens: int = 0
    """Prompt tokens of requests that were looked up in the prefix tree, once each."""
    prefix_cache_hit_tokens: int = 0
    """Those of them whose KV was there."""
    prompt_tokens: int = 0
    """Prompt tokens computed for the first time; cached ones are not among them."""
    generation_tokens: int = 0
    recomputed_tokens: int = 0
    """Tokens computed again after a preemption."""
    num_preemptions: int = 0


@dataclass(frozen=True, slots=True)
class CoreCounts:
    """Those counters of `CoreStats` that are told over all processes: sums, so that a restart loses nothing."""

    num_steps: int = 0
    prefix_cache_query_tokens: int = 0
    prefix_cache_hit_tokens: int = 0
    recomputed_tokens: int = 0
    num_preemptions: int = 0

    def plus(self, core: CoreStats | None) -> CoreCounts:
        """Give the sum with what one core has counted."""
        if core is None:
            return self
        return CoreCounts(
            num_steps=self.num_steps + core.num_steps,
            prefix_cache_query_tokens=self.prefix_cache_query_tokens + core.prefix_cache_query_tokens,
            prefix_cache_hit_tokens=self.prefix_cache_hit_tokens + core.prefix_cache_hit_tokens,
            recomputed_tokens=self.recomputed_tokens + core.recomputed_tokens,
            num_preemptions=self.num_preemptions + core.num_preemptions,
        )
