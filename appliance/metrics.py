"""The one metrics registry: engine series under vLLM's names, our own under `cloister_`.

A series with vLLM's name measures what vLLM's does; `docs/operate.md` lists them.  Its `request_` series, but two, are
observed once per sequence (a request has `n` of them per prompt), when the terminal record of its request is durable.
Labels are bounded: model, engine, closed sets of kinds, codes, routes and statuses.  Never a prompt, a user or a path
that a client chose.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest

from appliance.audit_trail import Kind
from appliance.engine_metrics import EngineCollector
from engine.request import FinishReason

if TYPE_CHECKING:
    from appliance.anchors.keeper import SinkStatus
    from appliance.log_status import Condition
    from appliance.running import Running
    from audit.siem.exporter import ExportStatus
    from engine.health import EngineStats

LATENCY_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.025, 0.04, 0.05, 0.06, 0.075, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75),
    *(0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 120.0, 160.0, 240.0, 480.0),
    *(640.0, 960.0, 1920.0, 2560.0, 7680.0),
)
"""A superset of vLLM's boundaries for every time series, so that its quantile queries keep working."""
TOKENS = tuple(digit * 10**power for power in range(6) for digit in (1, 2, 5))
CHOICES = (1, 2, 5, 10, 20, 50, 100)
HTTP_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0)
COMMIT_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
FINISHED_REASONS: dict[FinishReason, str] = {"stop": "stop", "length": "length", "cancelled": "abort", "error": "error"}
"""How a sequence ended -> vLLM's word for it."""
WITHHELD: dict[Kind, FinishReason] = {Kind.REQUEST_CANCELLED: "cancelled", Kind.REQUEST_FAILED: "error"}
"""Requests without an answer: whatever a sequence of theirs had come to, nobody was given it as finished."""


class ServingMetrics:
    """Owner of every series; one per process."""

    def __init__(self, model_name: str) -> None:
        self.registry = CollectorRegistry()
        self._labels = {"model_name": model_name, "engine": "0"}
        names = tuple(self._labels)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            family = Histogram(name, text, names, registry=self.registry, buckets=buckets)
            return family.labels(**self._labels)

        self._ttft = histogram("vllm:time_to_first_token_seconds", "From arrival to the first token.", LATENCY_S)
        self._itl = histogram("vllm:inter_token_latency_seconds", "Between two tokens of a sequence.", LATENCY_S)
        self._tpot = histogram(
            "vllm:request_time_per_output_token_seconds", "Mean time per token after the first.", LATENCY_S
        )
        self._e2e = histogram("vllm:e2e_request_latency_seconds", "From arrival to the terminal record.", LATENCY_S)
        self._queue = histogram("vllm:request_queue_time_seconds", "Until first scheduling.", LATENCY_S)
        self._prefill = histogram(
            "vllm:request_prefill_time_seconds", "From first scheduling to the first token.", LATENCY_S
        )
        self._decode = histogram("vllm:request_decode_time_seconds", "From the first token to the last.", LATENCY_S)
        self._inference = histogram(
            "vllm:request_inference_time_seconds", "From first scheduling to the last token.", LATENCY_S
        )
        self._prompt_len = histogram("vllm:request_prompt_tokens", "Prompt tokens.", TOKENS)
        self._computed_len = histogram(
            "vllm:request_prefill_kv_computed_tokens", "Prompt tokens that the cache did not hold.", TOKENS
        )
        self._output_len = histogram("vllm:request_generation_tokens", "Tokens generated.", TOKENS)
        self._max_tokens = histogram("vllm:request_params_max_tokens", "max_tokens as granted.", TOKENS)
        self._n = histogram("vllm:request_params_n", "Sequences asked for, per prompt.", CHOICES)
        self._longest = histogram(
            "vllm:request_max_num_generation_tokens", "Tokens of a prompt's longest sequence.", TOKENS
        )
        success = Counter(
            "vllm:request_success", "Sequences ended, by reason.", (*names, "finished_reason"), registry=self.registry
        )
        self._success = {
            finish: success.labels(**self._labels, finished_reason=reason)
            for finish, reason in FINISHED_REASONS.items()
        }
        self._http_requests = Counter(
            "http_requests",
            "Answers by handler, method and status.",
            ("handler", "method", "status"),
            registry=self.registry,
        )
        self._http_seconds = Histogram(
            "http_request_duration_seconds",
            "From the head of a request to the last byte of its answer.",
            ("handler", "method"),
            registry=self.registry,
            buckets=HTTP_S,
        )
        self._http_request_bytes = Summary(
            "http_request_size_bytes", "Bodies that were read.", ("handler",), registry=self.registry
        )
        self._http_response_bytes = Summary(
            "http_response_size_bytes", "Bodies that were sent.", ("handler",), registry=self.registry
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
            "cloister_audit_leaves_per_commit",
            "Group commit size.",
            registry=self.registry,
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
        )
        self.policy_decisions = Counter(
            "cloister_policy_decisions", "Answers of policy.", ("action", "effect"), registry=self.registry
        )
        self.key_use_write_failures = Counter(
            "cloister_key_use_write_failures", "Writes of keys' last day of use that failed.", registry=self.registry
        )
        self._siem_next_index = Gauge(
            "cloister_siem_next_index",
            "First leaf that a destination is not known to have.",
            ("destination",),
            registry=self.registry,
        )
        self._siem_behind = Gauge(
            "cloister_siem_behind_leaves",
            "Durable leaves that a destination is not known to have.",
            ("destination",),
            registry=self.registry,
        )
        self._siem_failing = Gauge(
            "cloister_siem_failing",
            "1 while the last try of a destination failed.",
            ("destination",),
            registry=self.registry,
        )
        self._anchor_size, self._anchor_taken_at, self._anchor_failing = (
            Gauge(name, text, ("sink",), registry=self.registry)
            for name, text in (
                ("cloister_anchor_size", "Size of the newest head that a place outside the box took in this run."),
                ("cloister_anchor_taken_timestamp_seconds", "When it took it; 0 before."),
                ("cloister_anchor_failing", "1 while the newest attempt of a place failed."),
            )
        )
        self._log_bytes = self._gauge("cloister_audit_bytes", "Bytes of the log's store.")
        self._free_bytes = self._gauge("cloister_audit_free_bytes", "Free bytes of the log's disk.")
        self._fill_ratio = self._gauge(
            "cloister_audit_fill_ratio", "How full the log's disk is on the way to the floor: 1 at the floor."
        )
        self._days_left = self._gauge("cloister_audit_days_left", "Days until the floor at the last day's pace.")
        self.waiting = self._gauge("cloister_audit_waiting", "Events that wait to be committed.")
        self.last_commit = self._gauge(
            "cloister_audit_last_commit_timestamp_seconds", "When the newest commit ended, since the epoch."
        )
        self.halted = self._gauge("cloister_audit_halted", "1 when the log has stopped for good.")
        self.clock_synchronised = self._gauge(
            "cloister_clock_synchronised", "1 while the kernel says that a time source keeps the clock; -1 unknown."
        )
        self.tree_size = Gauge("cloister_audit_tree_size", "Size of the newest signed tree.", registry=self.registry)
        self.admitting = Gauge("cloister_admitting", "1 while requests are admitted.", registry=self.registry)

    def watch_engine(self, stats: Callable[[], EngineStats]) -> None:
        """Read the engine's own counts at every scrape."""
        self.registry.register(EngineCollector(stats, self._labels))

    def first_token(self, seconds: float) -> None:
        """Note the time from a request's arrival to the first token of one of its sequences."""
        self._ttft.observe(seconds)

    def next_tokens(self, seconds: float, num_tokens: int) -> None:
        """Note the time to the next tokens, spread evenly over them."""
        for _ in range(num_tokens):
            self._itl.observe(seconds / num_tokens)

    def request_ended(self, running: Running, kind: Kind, total_s: float) -> None:
        """Note a request's end: every sequence, and every prompt's group of `n`.

        Args:
            running: with its choices as they ended.
            kind: of the terminal record.
            total_s: from arrival until that record was durable; only then the answer may end.
        """
        for index in range(len(running.choices)):
            self._sequence_ended(running, index, kind, total_s)
        n = running.request.n
        for start in range(0, len(running.choices), n):
            self._n.observe(n)
            self._longest.observe(max(choice.num_tokens for choice in running.choices[start : start + n]))

    def _sequence_ended(self, running: Running, index: int, kind: Kind, total_s: float) -> None:
        choice, planned = running.choices[index], running.plan.choices[index]
        num_prompt_tokens = len(planned.token_ids)
        self._e2e.observe(total_s)
        self._prompt_len.observe(num_prompt_tokens)
        self._output_len.observe(choice.num_tokens)
        self._max_tokens.observe(planned.params.max_tokens)
        if choice.num_cached_tokens is not None:
            self._computed_len.observe(num_prompt_tokens - choice.num_cached_tokens)
        if choice.queue_time_s is not None:
            self._queue.observe(choice.queue_time_s)
        if choice.prefill_time_s is not None:
            decode_s = running.decode_s(index)
            self._prefill.observe(choice.prefill_time_s)
            self._decode.observe(decode_s)
            self._inference.observe(choice.prefill_time_s + decode_s)
            if choice.num_tokens > 1:
                self._tpot.observe(decode_s / (choice.num_tokens - 1))
        finish = choice.finish.reason if choice.finish is not None else "error"
        self._success[WITHHELD.get(kind, finish)].inc()

    def http_answered(
        self, handler: str, method: str, status: int, *, seconds: float, request_bytes: int, response_bytes: int
    ) -> None:
        """Note one HTTP answer.

        Args:
            handler: the route's template, never a path that a client made up.
            method: one that the route takes, or `unknown`.
            status: 0 when no head went out.
            seconds: until the last byte was handed over.
            request_bytes: of the body, as far as it was read.
            response_bytes: of the body, as far as it was sent.
        """
        self._http_requests.labels(handler, method, str(status)).inc()
        self._http_seconds.labels(handler, method).observe(seconds)
        self._http_request_bytes.labels(handler).observe(request_bytes)
        self._http_response_bytes.labels(handler).observe(response_bytes)

    def anchored(self, sink: str, status: SinkStatus) -> None:
        """Note what is known of one place outside the box."""
        self._anchor_size.labels(sink).set(status.size or 0)
        self._anchor_taken_at.labels(sink).set(status.taken_at_s)
        self._anchor_failing.labels(sink).set(status.code is not None)

    def measured(self, condition: Condition) -> None:
        """Note the log's size and what is left of its disk; what cannot be seen is not a number."""
        expected = condition.forecast
        self._log_bytes.set(condition.measure.used_bytes)
        self._free_bytes.set(_number(condition.measure.free_bytes))
        self._fill_ratio.set(_number(expected.fill_ratio))
        self._days_left.set(_number(expected.days_left))

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def exported(self, destination: str, status: ExportStatus, tree_size: int) -> None:
        """Note how far a copy has come; destinations are those of the settings, never a client's."""
        self._siem_next_index.labels(destination).set(status.next_index)
        self._siem_behind.labels(destination).set(max(0, tree_size - status.next_index))
        self._siem_failing.labels(destination).set(status.failure is not None)

    def render(self) -> bytes:
        """Give the text exposition."""
        return generate_latest(self.registry)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
