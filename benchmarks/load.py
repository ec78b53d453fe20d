"""A load as values: prompt lengths, prefixes and answer lengths, from a real trace or drawn from a seed.

The Azure conversation trace gives real lengths in real order; where it is absent a log-normal draw with its medians
stands in, and the table says so.  Lengths are divided by `scale`, so that a CPU gets through them.  A share of the
requests begins with one of a few system prompts, as a site's own applications do.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

TRACE = Path(__file__).resolve().parents[2] / "shared" / "data" / "traces" / "azure_llm_2023_conv.csv"
NUM_SYSTEM_PROMPTS = 4
SYSTEM_PROMPT_SHARE = 0.5
SHORT_PROMPT = 16
MEDIAN_PROMPT, MEDIAN_OUTPUT = 928, 129
"""Medians of the trace."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One request of the load."""

    token_ids: tuple[int, ...]
    num_output: int


@dataclass(frozen=True, slots=True)
class Load:
    """Requests in order, and where their lengths come from."""

    requests: tuple[LoadRequest, ...]
    source: str


def make_load(num_requests: int, text_ids: list[int], *, scale: int, max_len: int, seed: int) -> Load:
    """Make the load that both arms of the benchmark get."""
    rng = random.Random(seed)
    lengths, source = _trace_lengths(num_requests, rng)
    systems = [_tokens(rng, text_ids, max(1, MEDIAN_PROMPT // scale // 2)) for _ in range(NUM_SYSTEM_PROMPTS)]
    requests = []
    for prompt_len, output_len in lengths:
        wanted = min(max(1, prompt_len // scale), max_len // 2)
        num_output = min(max(2, output_len // scale), max_len // 2)
        prefix = rng.choice(systems) if rng.random() < SYSTEM_PROMPT_SHARE else ()
        prompt = (*prefix[:wanted], *_tokens(rng, text_ids, max(1, wanted - len(prefix))))
        requests.append(LoadRequest(prompt, num_output))
    return Load(tuple(requests), f"{source}, lengths / {scale}")


def make_short_load(num_requests: int, text_ids: list[int], *, seed: int) -> Load:
    """Make the load that shows what comes before the first token: next to no prefill, so that little else varies."""
    rng = random.Random(seed)
    requests = tuple(LoadRequest(_tokens(rng, text_ids, SHORT_PROMPT), 2) for _ in range(num_requests))
    return Load(requests, f"prompts of {SHORT_PROMPT} tokens")


def _trace_lengths(num_requests: int, rng: random.Random) -> tuple[list[tuple[int, int]], str]:
    if TRACE.exists():
        with TRACE.open() as file:
            rows = list(csv.DictReader(file))
        first = rng.randrange(len(rows) - num_requests)
        chosen = rows[first : first + num_requests]
        lengths = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in chosen]
        return lengths, "Azure 2023 conversation trace"
    drawn = [
        (int(rng.lognormvariate(0, 1) * MEDIAN_PROMPT), int(rng.lognormvariate(0, 0.8) * MEDIAN_OUTPUT))
        for _ in range(num_requests)
    ]
    return drawn, "seeded synthetic lengths"


def _tokens(rng: random.Random, text_ids: list[int], count: int) -> tuple[int, ...]:
    return tuple(rng.choices(text_ids, k=count))
