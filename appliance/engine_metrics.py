"""The engine's own counts as series, read when somebody scrapes.  Names and meanings are vLLM's where it has them.

Promise: one scrape shows one moment of the counts.  Never: counts anything itself, nor bears a label of a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from engine.health import EngineInfo, EngineStats

STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""vLLM's boundaries."""


class EngineCollector(Collector):
    """Turns the latest `EngineStats` into series.  Holds nothing."""

    def __init__(self, stats: Callable[[], EngineStats], labels: dict[str, str]) -> None:
        self._stats = stats
        self._names = tuple(labels)
        self._values = tuple(labels.values())

    def collect(self) -> Iterable[Metric]:
        """Give one family per series."""
        stats = self._stats()
        for name, text, value in _gauges(stats):
            gauge = GaugeMetricFamily(name, text, labels=self._names)
            gauge.add_metric(self._values, value)
            yield gauge
        for name, text, count in _counters(stats):
            counter = CounterMetricFamily(name, text, labels=self._names)
            counter.add_metric(self._values, count)
            yield counter
        yield self._prompt_tokens_by_source(stats)
        yield self._step_tokens(stats)
        if stats.loaded is not None:
            yield self._cache_config(stats.loaded)

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before the engine runs."""
        return []

    def _prompt_tokens_by_source(self, stats: EngineStats) -> Metric:
        text = "Prompt tokens by where their KV came from; a last token computed for its logits counts as both."
        family = CounterMetricFamily("vllm:prompt_tokens_by_source", text, labels=(*self._names, "source"))
        computed = stats.num_prompt_tokens - stats.num_cached_tokens
        family.add_metric((*self._values, "local_compute"), computed)
        cached = stats.num_cached_tokens + stats.num_last_tokens_recomputed
        family.add_metric((*self._values, "local_cache_hit"), cached)
        return family

    def _step_tokens(self, stats: EngineStats) -> Metric:
        text = "Tokens computed in one engine step; a histogram in spite of its name."
        family = HistogramMetricFamily("vllm:iteration_tokens_total", text, labels=self._names)
        total = sum(num_tokens * num_steps for num_tokens, num_steps in stats.steps_by_tokens)
        family.add_metric(self._values, list(_cumulative(stats.steps_by_tokens)), total)
        return family

    def _cache_config(self, loaded: EngineInfo) -> Metric:
        layout = {
            "block_size": str(loaded.page_size),
            "cache_dtype": loaded.dtype,
            "enable_prefix_caching": str(loaded.enable_prefix_cache),
            "num_gpu_blocks": str(loaded.num_pages),
        }
        text = "The KV memory, always 1: tokens per page, its type, whether prefixes are shared, pages on the device."
        family = GaugeMetricFamily("vllm:cache_config_info", text, labels=(*self._names, *layout))
        family.add_metric((*self._values, *layout.values()), 1)
        return family


def _gauges(stats: EngineStats) -> tuple[tuple[str, str, float], ...]:
    core = stats.core
    return (
        ("vllm:num_requests_running", "Sequences in the running batch.", stats.num_running),
        ("vllm:num_requests_waiting", "Sequences that wait for their turn.", stats.num_waiting),
        ("vllm:kv_cache_usage_perc", "Pages that live sequences hold, 0 to 1.", core.kv_usage_perc if core else 0.0),
        (
            "cloister_kv_waste_ratio",
            "Unused slots in the pages of live sequences, 0 to 1.",
            core.kv_waste_perc if core else 0.0,
        ),
    )


def _counters(stats: EngineStats) -> tuple[tuple[str, str, int], ...]:
    counts = stats.counts
    return (
        ("vllm:prompt_tokens", "Prompt tokens, computed or cached.", stats.num_prompt_tokens),
        ("vllm:prompt_tokens_cached", "Prompt tokens that the prefix cache held.", stats.num_cached_tokens),
        (
            "vllm:prompt_tokens_recomputed",
            "Last tokens of prompts cached up to them, computed because their logits are needed.",
            stats.num_last_tokens_recomputed,
        ),
        ("vllm:generation_tokens", "Tokens generated.", stats.num_output_tokens),
        ("vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", counts.prefix_cache_query_tokens),
        ("vllm:prefix_cache_hits", "Those of them that were found.", counts.prefix_cache_hit_tokens),
        ("vllm:num_preemptions", "Sequences that gave their pages to another.", counts.num_preemptions),
        ("vllm:corrupted_requests", "Sequences that ended because of NaN in their logits.", stats.num_nan_logits),
        ("cloister_recomputed_tokens", "Tokens computed again after a preemption.", counts.recomputed_tokens),
        ("cloister_engine_steps", "Engine steps.", counts.num_steps),
        ("cloister_engine_restarts", "Restarts of the engine process.", stats.restarts),
    )


def _cumulative(steps_by_tokens: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, int]]:
    """Give (upper bound, steps up to it) for each boundary; `steps_by_tokens` ascends."""
    bounds = (*map(float, STEP_TOKENS), float("inf"))
    per_bucket = [
        sum(num_steps for num_tokens, num_steps in steps_by_tokens if below < num_tokens <= bound)
        for below, bound in zip((0.0, *bounds), bounds, strict=False)
    ]
    names = (*map(str, bounds[:-1]), "+Inf")
    return zip(names, accumulate(per_bucket), strict=True)
