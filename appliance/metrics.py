"""The one metrics registry: engine series under vLLM's names, our own under `cloister_`.

Labels are bounded: model, engine, closed sets of kinds, codes, routes and statuses.  Never a prompt, a user or a path
that a client chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from appliance.audit_trail import Kind

if TYPE_CHECKING:
    from appliance.running import Running
    from engine.health import EngineStats

LATENCY_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5),
    *(2.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 120.0, 160.0, 240.0, 480.0, 640.0, 2560.0),
)
"""A superset of vLLM's boundaries for every time series, so that its quantile queries keep working."""
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
COMMIT_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
FINISHED_REASON = {
    Kind.REQUEST_COMPLETED: "stop",
    Kind.REQUEST_CANCELLED: "abort",
    Kind.REQUEST_FAILED: "error",
}


class ServingMetrics:
    """Owner of every series; one per process."""

    def __init__(self, model_name: str) -> None:
        self.registry = CollectorRegistry()
        self._labels = {"model_name": model_name, "engine": "0"}
        names = tuple(self._labels)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            family = Histogram(name, text, names, registry=self.registry, buckets=buckets)
            return family.labels(**self._labels)

        self._ttft = histogram("vllm:time_to_first_token_seconds", "From admission to the first token.", LATENCY_S)
        self._itl = histogram("vllm:inter_token_latency_seconds", "Between tokens of one sequence.", LATENCY_S)
        self._tpot = histogram(
            "vllm:request_time_per_output_token_seconds", "Mean time per output token of a request.", LATENCY_S
        )
        self._e2e = histogram("vllm:e2e_request_latency_seconds", "From admission to the terminal record.", LATENCY_S)
        self._queue = histogram("vllm:request_queue_time_seconds", "Wait in the engine's queue.", LATENCY_S)
        self._prompt_len = histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", TOKENS)
        self._output_len = histogram("vllm:request_generation_tokens", "Output tokens of a request.", TOKENS)
        self._n = histogram("vllm:request_params_n", "Choices asked for.", TOKENS[:8])
        self._max_tokens = histogram("vllm:request_params_max_tokens", "max_tokens granted.", TOKENS)
        self._success = Counter(
            "vllm:request_success", "Requests ended, by reason.", (*names, "finished_reason"), registry=self.registry
        )
        self.http_requests = Counter(
            "http_requests",
            "Answers by handler, method and status.",
            ("handler", "method", "status"),
            registry=self.registry,
        )
        self.records = Counter("cloister_audit_records", "Leaves appended.", ("kind",), registry=self.registry)
        self.commit_seconds = Histogram(
            "cloister_audit_commit_seconds", "One commit of the log.", registry=self.registry, buckets=COMMIT_S
        )
        self.append_seconds = Histogram(
            "cloister_audit_append_seconds",
            "Wait of one event until it is durable: at most the commit in flight and its own.",
            ("kind",),
            registry=self.registry,
            buckets=COMMIT_S,
        )
        self.leaves_per_commit = Histogram(
            "cloister_audit_leaves_per_commit", "Group commit size.", registry=self.registry, buckets=TOKENS[:9]
        )
        self.policy_decisions = Counter(
            "cloister_policy_decisions", "Answers of policy.", ("action", "effect"), registry=self.registry
        )
        self.key_use_write_failures = Counter(
            "cloister_key_use_write_failures", "Writes of keys' last day of use that failed.", registry=self.registry
        )
        self.tree_size = Gauge("cloister_audit_tree_size", "Size of the newest signed tree.", registry=self.registry)
        self.admitting = Gauge("cloister_admitting", "1 while requests are admitted.", registry=self.registry)

    def watch_engine(self, stats: Callable[[], EngineStats]) -> None:
        """Read the engine's own counts at every scrape."""
        self.registry.register(_EngineCollector(stats, self._labels))

    def first_token(self, seconds: float) -> None:
        """Note the time to a request's first token."""
        self._ttft.observe(seconds)

    def next_tokens(self, seconds: float, num_tokens: int) -> None:
        """Note the time to the next tokens, spread evenly over them."""
        for _ in range(num_tokens):
            self._itl.observe(seconds / num_tokens)

    def request_ended(self, running: Running, kind: Kind, total_s: float) -> None:
        """Note a request's end."""
        usage = running.usage()
        self._e2e.observe(total_s)
        self._prompt_len.observe(usage.prompt_tokens)
        self._output_len.observe(usage.completion_tokens)
        self._n.observe(running.request.n)
        self._max_tokens.observe(running.plan.max_tokens)
        if (queue_ms := running.queue_ms()) is not None:
            self._queue.observe(queue_ms / 1000)
        if usage.completion_tokens > 1 and (first_ms := running.first_token_ms()) is not None:
            self._tpot.observe(max(0.0, total_s - first_ms / 1000) / (usage.completion_tokens - 1))
        reason = FINISHED_REASON[kind]
        if kind is Kind.REQUEST_COMPLETED and any(finish.reason == "length" for finish in running.finishes()):
            reason = "length"
        self._success.labels(**self._labels, finished_reason=reason).inc()

    def render(self) -> bytes:
        """Give the text exposition."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    """Turns the engine's latest counts into series when somebody scrapes."""

    def __init__(self, stats: Callable[[], EngineStats], labels: dict[str, str]) -> None:
        self._stats = stats
        self._names = tuple(labels)
        self._values = tuple(labels.values())

    def collect(self) -> Iterable[Metric]:
        """Give one family per series."""
        stats = self._stats()
        core = stats.core
        gauges = (
            ("vllm:num_requests_running", "Sequences in the running batch.", core.num_running if core else 0),
            ("vllm:num_requests_waiting", "Sequences waiting.", core.num_waiting if core else 0),
            ("vllm:kv_cache_usage_perc", "KV pages in use, 0 to 1.", core.kv_usage_perc if core else 0.0),
            (
                "cloister_kv_waste_ratio",
                "Unused slots in the pages of live sequences, 0 to 1.",
                core.kv_waste_perc if core else 0.0,
            ),
        )
        counters = (
            ("vllm:prompt_tokens", "Prompt tokens computed or taken from the cache.", stats.num_prompt_tokens),
            ("vllm:prompt_tokens_cached", "Prompt tokens taken from the cache.", stats.num_cached_tokens),
            ("vllm:generation_tokens", "Tokens generated.", stats.num_output_tokens),
            ("vllm:prefix_cache_queries", "Tokens looked up in the prefix cache.", stats.num_prompt_tokens),
            ("vllm:prefix_cache_hits", "Tokens found in the prefix cache.", stats.num_cached_tokens),
            ("vllm:num_preemptions", "Preemptions.", stats.num_preemptions),
            ("cloister_engine_steps", "Engine steps.", stats.num_steps),
            ("cloister_engine_restarts", "Restarts of the engine process.", stats.restarts),
        )
        for name, text, value in gauges:
            gauge = GaugeMetricFamily(name, text, labels=self._names)
            gauge.add_metric(self._values, value)
            yield gauge
        for name, text, value in counters:
            counter = CounterMetricFamily(name, text, labels=self._names)
            counter.add_metric(self._values, value)
            yield counter

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before the engine runs."""
        return []
