"""What a run measured, as one table and as the goals it meets or misses.

Promise: pure; quantiles are of all requests of a row, pooled over its rounds; a spread is the least and the greatest
of the rounds; a goal that too few requests speak for is called undecided.
Never: measures, reads a clock, a file or the network.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.arms import Times

MIN_FOR_P99 = 100
"""Requests below which a 99th percentile is only the greatest value seen."""
MAX_COMMITS_OF_TTFT = 2
MIN_THROUGHPUT_SHARE = 0.95
MAX_KV_WASTE = 0.04


@dataclass(frozen=True, slots=True)
class Row:
    """One load at one number of streams, both arms, all rounds."""

    name: str
    streams: int
    is_short: bool
    """Short prompts: the row that the goal for the first token is judged by.  The others are judged by throughput and
    KV waste: there a first token waits for other prompts' prefill, whose chances hide milliseconds."""
    http: tuple[Times, ...]
    engine: tuple[Times, ...]
    kv_waste: float | None
    """Mean over the samples taken while requests ran; None where the row was over before the first."""
    prefix_hit: float
    commit_p99_s: float
    """Of one commit of the log, while this row's load ran."""
    two_appends_s: float
    """Mean wait for the admitted and the completed record of a request, together."""

    @property
    def num_requests(self) -> int:
        """Requests that each arm answered, over all rounds."""
        return sum(len(times.ttft_s) for times in self.http)

    @property
    def added_ttft_p99_s(self) -> float:
        """Appliance minus engine."""
        return quantile(_pooled(self.http, "ttft_s"), 0.99) - quantile(_pooled(self.engine, "ttft_s"), 0.99)

    @property
    def throughput_shares(self) -> list[float]:
        """Appliance over engine, round by round."""
        return [a.tokens_per_s / b.tokens_per_s for a, b in zip(self.http, self.engine, strict=True)]


def table_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Give the two tables, in Markdown."""
    yield "| load | requests | arm | TTFT p50 | TTFT p99 | ITL p50 | ITL p99 | output tok/s |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        for name, arm in (("appliance", row.http), ("engine alone", row.engine)):
            cells = [
                spread_of([1000 * quantile(getattr(times, field), at) for times in arm], 1)
                for field in ("ttft_s", "itl_s")
                for at in (0.5, 0.99)
            ]
            speed = spread_of([times.tokens_per_s for times in arm], 1)
            yield f"| {row.name} | {row.num_requests} | {name} | {' | '.join(cells)} | {speed} |"
    yield ""
    yield (
        "| load | tok/s, appliance : engine | TTFT p50 added | TTFT p99 added | commit p99 | two appends, mean "
        "| KV waste | prefix hit |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        p50 = statistics.median(_pooled(row.http, "ttft_s")) - statistics.median(_pooled(row.engine, "ttft_s"))
        yield (
            f"| {row.name} | {spread_of(row.throughput_shares, 3)} | {1000 * p50:.1f} "
            f"| {1000 * row.added_ttft_p99_s:.1f} | {1000 * row.commit_p99_s:.1f} | {1000 * row.two_appends_s:.1f} "
            f"| {_share(row.kv_waste)} | {row.prefix_hit:.1%} |"
        )


def goal_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Say of each row whether its figures meet the goal that it speaks for."""
    for row in rows:
        yield f"{row.name}: " + (_first_token_goal(row) if row.is_short else _serving_goals(row))


def _first_token_goal(row: Row) -> str:
    bound_s = MAX_COMMITS_OF_TTFT * row.commit_p99_s
    enough = row.num_requests >= MIN_FOR_P99
    verdict = _verdict(met=row.added_ttft_p99_s <= bound_s) if enough else f"undecided (under {MIN_FOR_P99} requests)"
    return (
        f"TTFT p99 {1000 * row.added_ttft_p99_s:+.1f} ms (goal {1000 * bound_s:.1f} ms, two commits at p99) {verdict}"
    )


def _serving_goals(row: Row) -> str:
    share = statistics.median(row.throughput_shares)
    waste = "undecided" if row.kv_waste is None else _verdict(met=row.kv_waste < MAX_KV_WASTE)
    return (
        f"throughput {share:.1%} of the engine's (goal {MIN_THROUGHPUT_SHARE:.0%}) "
        f"{_verdict(met=share >= MIN_THROUGHPUT_SHARE)}; "
        f"KV waste {_share(row.kv_waste)} (goal {MAX_KV_WASTE:.0%}) {waste}"
    )


def quantile(values: Sequence[float], at: float) -> float:
    """Give the value at a share of the order."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(at * len(ordered)))]


def histogram_quantile(cumulative: Mapping[float, float], at: float) -> float:
    """Give a quantile of a Prometheus histogram (upper bound to cumulative count), linear within its bucket."""
    total = max(cumulative.values())
    lower, below = 0.0, 0.0
    for upper, count in sorted(cumulative.items()):
        if count >= at * total:
            share = (at * total - below) / (count - below) if count > below else 0.0
            return lower if upper == float("inf") else lower + share * (upper - lower)
        lower, below = upper, count
    return lower


def spread_of(values: Sequence[float], digits: int) -> str:
    """Give the median with the least and the greatest."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def _pooled(arm: Sequence[Times], field: str) -> list[float]:
    return [value for times in arm for value in getattr(times, field)]


def _share(value: float | None) -> str:
    return "not sampled" if value is None else f"{value:.1%}"


def _verdict(*, met: bool) -> str:
    return "met" if met else "MISSED"
