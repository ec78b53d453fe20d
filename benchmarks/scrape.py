"""The appliance's own series, read while it is under load.

Promise: engine labels are dropped (there is one engine); a difference is of two scrapes around a row.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

import httpx

from benchmarks.table import histogram_quantile

SAMPLE_EVERY_S = 1.0
"""A scrape takes some milliseconds of a core."""
_LINE = re.compile(r"^([a-z_:]+)(\{[^}]*\})? ([0-9.e+-]+)$", re.MULTILINE)
_BOUND = re.compile(r'le="([^"]+)"')

Series = dict[str, float]


async def read_series(operator: httpx.AsyncClient) -> Series:
    """Scrape /metrics as an operator does."""
    text = (await operator.get("/metrics")).raise_for_status().text
    found = _LINE.findall(text)
    return {name + ("" if "model_name" in labels else labels): float(value) for name, labels, value in found}


async def sample_kv_waste(operator: httpx.AsyncClient, samples: list[float]) -> None:
    """Note the share of unused slots in used pages again and again, while requests run; until cancelled."""
    while True:
        series = await read_series(operator)
        if series.get("vllm:num_requests_running", 0.0) > 0:
            samples.append(series["cloister_kv_waste_ratio"])
        await asyncio.sleep(SAMPLE_EVERY_S)


@dataclass(frozen=True, slots=True)
class Growth:
    """What counters grew by between two scrapes."""

    before: Series
    after: Series

    def of(self, name: str) -> float:
        """Give one counter's growth."""
        return self.after.get(name, 0.0) - self.before.get(name, 0.0)

    def prefix_hit(self) -> float:
        """Give the share of looked-up prompt tokens that were cached."""
        return self.of("vllm:prefix_cache_hits_total") / max(1.0, self.of("vllm:prefix_cache_queries_total"))

    def append_s(self, kind: str) -> float:
        """Give the mean wait for a record of this kind."""
        name = "cloister_audit_append_seconds"
        return self.of(f'{name}_sum{{kind="{kind}"}}') / self.of(f'{name}_count{{kind="{kind}"}}')

    def commit_quantile_s(self, at: float) -> float:
        """Give a quantile of one commit's time."""
        prefix = "cloister_audit_commit_seconds_bucket{"
        buckets = {
            float(_BOUND.findall(name)[0].replace("+Inf", "inf")): self.of(name)
            for name in self.after
            if name.startswith(prefix)
        }
        return histogram_quantile(buckets, at)
