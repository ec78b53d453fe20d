"""The metrics measure what they say: the list that dashboards rely on, and the numbers that requests leave in it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from live_appliance import LiveAppliance
from prometheus_client.parser import text_string_to_metric_families
from walk_bench import WalkBench, collect, completion

from appliance.inference import PlainText
from appliance.metrics import ServingMetrics
from engine.health import EngineInfo, EngineStats
from engine.stats import CoreCounts, CoreStats

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
VLLM_SERIES = {
    "num_requests_running": GAUGE,
    "num_requests_waiting": GAUGE,
    "kv_cache_usage_perc": GAUGE,
    "cache_config_info": GAUGE,
    "prompt_tokens": COUNTER,
    "generation_tokens": COUNTER,
    "prompt_tokens_cached": COUNTER,
    "prompt_tokens_by_source": COUNTER,
    "prompt_tokens_recomputed": COUNTER,
    "prefix_cache_queries": COUNTER,
    "prefix_cache_hits": COUNTER,
    "num_preemptions": COUNTER,
    "request_success": COUNTER,
    "corrupted_requests": COUNTER,
    "time_to_first_token_seconds": HISTOGRAM,
    "inter_token_latency_seconds": HISTOGRAM,
    "request_time_per_output_token_seconds": HISTOGRAM,
    "e2e_request_latency_seconds": HISTOGRAM,
    "request_queue_time_seconds": HISTOGRAM,
    "request_inference_time_seconds": HISTOGRAM,
    "request_prefill_time_seconds": HISTOGRAM,
    "request_decode_time_seconds": HISTOGRAM,
    "request_prompt_tokens": HISTOGRAM,
    "request_generation_tokens": HISTOGRAM,
    "request_max_num_generation_tokens": HISTOGRAM,
    "request_params_n": HISTOGRAM,
    "request_params_max_tokens": HISTOGRAM,
    "request_prefill_kv_computed_tokens": HISTOGRAM,
    "iteration_tokens_total": HISTOGRAM,
}
"""vLLM's list.  Left out is what measures parts that are not here: adapters (`lora_requests_info`), sleep
(`engine_sleep_state`), a cache outside the process (`external_prefix_cache_*`), speculation (`spec_decode_*`), sampled
lives of pages (`kv_block_*`)."""
HTTP_SERIES = {
    "http_requests": COUNTER,
    "http_request_duration_seconds": HISTOGRAM,
    "http_request_size_bytes": "summary",
    "http_response_size_bytes": "summary",
}
VLLM_BOUNDARIES = {
    "time_to_first_token_seconds": "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10 20 40 80 160 "
    "640 2560",
    "inter_token_latency_seconds": "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1 2.5 5 7.5 10 20 40 80",
    "request_queue_time_seconds": "0.3 0.5 0.8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680",
    "request_params_n": "1 2 5 10 20",
    "request_prompt_tokens": "1 2 5 10 20 50 100 200 500 1000 2000 5000 10000 20000 50000 100000",
    "iteration_tokens_total": "1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384",
}
STATS = EngineStats(
    num_prompt_tokens=30,
    num_cached_tokens=12,
    num_last_tokens_recomputed=2,
    num_output_tokens=7,
    num_nan_logits=1,
    num_finished=(("length", 2),),
    counts=CoreCounts(9, 29, 11, 5, 3),
    steps_by_tokens=((1, 4), (8, 1), (9, 2), (20000, 1)),
    restarts=6,
    num_running=2,
    num_waiting=4,
    core=CoreStats(2, 3, 10, 4, 1, kv_usage_perc=0.5, kv_waste_perc=0.03),
    loaded=EngineInfo(
        max_model_len=64,
        vocab_size=97,
        num_pages=10,
        page_size=16,
        dtype="float32",
        engine_build="0" * 64,
        torch_version="none",
        processor="none",
        num_threads=1,
        weight_bytes=0,
        kv_bytes=0,
        verify_s=0.0,
        build_s=0.0,
        enable_prefix_cache=True,
        quantization="none",
    ),
)


@dataclass(frozen=True, slots=True)
class Scrape:
    """One exposition: type by family, and value by sample and the labels that tell samples of one name apart."""

    families: Mapping[str, str]
    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, **labels: str) -> float:
        """Give one sample's value; 0 where a labelled one has not begun."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def since(self, before: Scrape) -> Scrape:
        """Give what grew."""
        return Scrape(self.families, {key: value - before.samples.get(key, 0.0) for key, value in self.samples.items()})


def scrape(text: str) -> Scrape:
    """Read an exposition as Prometheus does."""
    families, samples = {}, {}
    for family in text_string_to_metric_families(text):
        if family.name.endswith("_created"):
            continue  # when a series began: the client library's own, beside each of them
        families[family.name] = family.type
        for sample in family.samples:
            labels = {name: text for name, text in sample.labels.items() if name not in {"engine", "model_name"}}
            samples[sample.name, frozenset(labels.items())] = sample.value
    return Scrape(families, samples)


def engine_scrape(stats: EngineStats = STATS) -> Scrape:
    """Give the exposition over an engine that has counted just so much."""
    metrics = ServingMetrics("starter")
    metrics.watch_engine(lambda: stats)
    return scrape(metrics.render().decode())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WalkBench]:
    """A walk over a scripted engine: five tokens per sequence, a prefill of a quarter of a second each."""
    made = WalkBench(tmp_path)
    yield made
    made.close()


def test_the_series_are_vllms_in_name_and_type():
    """Neither one less nor one under a name of vLLM's that vLLM does not have."""
    families = engine_scrape().families
    expected = {f"vllm:{name}": kind for name, kind in VLLM_SERIES.items()} | HTTP_SERIES
    assert {name: kind for name, kind in families.items() if not name.startswith("cloister_")} == expected


@pytest.mark.parametrize("name", VLLM_BOUNDARIES)
def test_quantile_queries_made_for_vllm_keep_working(name: str):
    """Every boundary of vLLM's is one of ours."""
    found = {dict(labels)["le"] for sample, labels in engine_scrape().samples if sample == f"vllm:{name}_bucket"}
    assert {float(bound) for bound in VLLM_BOUNDARIES[name].split()} <= {float(bound) for bound in found}


def test_every_series_is_documented(repository: Path):
    """docs/operate.md names every series that can be scraped, and none that cannot."""
    page = (repository / "docs/operate.md").read_text()
    documented = set(re.findall(r"`((?:vllm:|cloister_|http_)[a-z0-9_]+)`", page))
    exposed = {name + "_total" * (kind == COUNTER) for name, kind in engine_scrape().families.items()}
    assert documented == exposed


def test_the_engines_counts_come_out_under_their_names():
    """Each number of the engine's stands where vLLM has its like."""
    found = engine_scrape()
    expected = {
        "vllm:num_requests_running": 2,
        "vllm:num_requests_waiting": 4,
        "vllm:kv_cache_usage_perc": 0.5,
        "cloister_kv_waste_ratio": 0.03,
        "vllm:prompt_tokens_total": 30,
        "vllm:prompt_tokens_cached_total": 12,
        "vllm:prompt_tokens_recomputed_total": 2,
        "vllm:generation_tokens_total": 7,
        "vllm:prefix_cache_queries_total": 29,
        "vllm:prefix_cache_hits_total": 11,
        "vllm:num_preemptions_total": 3,
        "vllm:corrupted_requests_total": 1,
        "cloister_recomputed_tokens_total": 5,
        "cloister_engine_steps_total": 9,
        "cloister_engine_restarts_total": 6,
        "vllm:iteration_tokens_total_count": 8,
        "vllm:iteration_tokens_total_sum": 4 * 1 + 8 + 2 * 9 + 20000,
    }
    assert {name: found.value(name) for name in expected} == expected
    steps = {bound: found.value("vllm:iteration_tokens_total_bucket", le=bound) for bound in ("1.0", "8.0", "16.0")}
    assert steps == {"1.0": 4, "8.0": 5, "16.0": 7}
    assert found.value("vllm:iteration_tokens_total_bucket", le="16384.0") == 7
    assert found.value("vllm:iteration_tokens_total_bucket", le="+Inf") == 8
    sources = {
        source: found.value("vllm:prompt_tokens_by_source_total", source=source)
        for source in ("local_compute", "local_cache_hit")
    }
    assert sources == {"local_compute": 18, "local_cache_hit": 14}
    layout = {"block_size": "16", "cache_dtype": "float32", "enable_prefix_caching": "True", "num_gpu_blocks": "10"}
    assert found.value("vllm:cache_config_info", **layout) == 1


def test_every_sequence_of_a_request_counts(bench: WalkBench):
    """Two prompts with three choices each: six sequences in every series but the two that speak of prompts."""

    async def ask() -> None:
        request = replace(completion(n=3), prompts=(PlainText("Once"), PlainText("a")))
        _, error = await collect(await bench.walk.admit(bench.asking("r1"), request))
        assert error is None

    asyncio.run(ask())
    found = scrape(bench.metrics.render().decode())
    prompt_lens = [len(stream.request.token_ids) for stream in bench.engine.streams]
    sums = {
        "request_prompt_tokens": sum(prompt_lens),
        "request_prefill_kv_computed_tokens": sum(prompt_lens),
        "request_generation_tokens": 6 * 5,
        "request_params_max_tokens": 6 * 5,
        "request_queue_time_seconds": 0,
        "request_prefill_time_seconds": 6 * 0.25,
    }
    times = ("decode", "inference")
    for name in (*sums, *(f"request_{one}_time_seconds" for one in times), "request_time_per_output_token_seconds"):
        assert found.value(f"vllm:{name}_count") == 6, name
    for name in ("e2e_request_latency_seconds", "time_to_first_token_seconds"):
        assert found.value(f"vllm:{name}_count") == 6, name
    assert {name: found.value(f"vllm:{name}_sum") for name in sums} == sums
    for name, total in (("request_params_n", 2 * 3), ("request_max_num_generation_tokens", 2 * 5)):
        assert (found.value(f"vllm:{name}_count"), found.value(f"vllm:{name}_sum")) == (2, total)
    assert found.value("vllm:inter_token_latency_seconds_count") == 6 * 4
    decode_s = found.value("vllm:request_decode_time_seconds_sum")
    assert decode_s == pytest.approx(found.value("vllm:inter_token_latency_seconds_sum"))
    assert decode_s == pytest.approx(4 * found.value("vllm:request_time_per_output_token_seconds_sum"))
    assert found.value("vllm:request_inference_time_seconds_sum") == pytest.approx(6 * 0.25 + decode_s)
    assert found.value("vllm:request_success_total", finished_reason="length") == 6


@pytest.mark.parametrize(("end", "reason"), [("cancelled", "abort"), ("error", "error")])
def test_an_answer_that_is_withheld_is_no_success(bench: WalkBench, end: str, reason: str):
    """A request that ends without its answer counts as aborted or failed, and its reasons all stand at 0 before."""

    async def ask() -> None:
        bench.engine.gate = asyncio.Event()
        running = await bench.walk.admit(bench.asking("r1"), completion())
        await anext(running.answers())
        if end == "cancelled":
            running.abandon("client_closed")
        else:
            running.streams[0].error = "out_of_kv_memory"
            bench.engine.gate.set()
        await bench.walk.settle()

    before = scrape(bench.metrics.render().decode())
    asyncio.run(ask())
    found = scrape(bench.metrics.render().decode())
    reasons = {
        dict(labels)["finished_reason"] for name, labels in before.samples if name == "vllm:request_success_total"
    }
    assert reasons == {"stop", "length", "abort", "error"}
    ended = {one: found.value("vllm:request_success_total", finished_reason=one) for one in reasons}
    assert ended == {one: float(one == reason) for one in reasons}
    assert found.value("vllm:request_generation_tokens_sum") == 1
    assert found.value("vllm:request_time_per_output_token_seconds_count") == 0


def _when_idle(operator: httpx.Client) -> Scrape:
    """Scrape once nothing runs any more that another test left behind."""
    while True:
        found = scrape(operator.get("/metrics").raise_for_status().text)
        if found.value("vllm:num_requests_running") == found.value("vllm:num_requests_waiting") == 0:
            return found


@pytest.mark.timeout(120)
def test_a_request_leaves_its_numbers(live: LiveAppliance):
    """What a live request says of its usage is what the series grew by, and the times add up."""
    body = {
        "model": "starter",
        "prompt": "A text that no other test asks for: 8451",
        "max_tokens": 6,
        "ignore_eos": True,
    }
    with live.client("operator") as operator, live.client("developer") as developer:
        before = _when_idle(operator)
        answers = [developer.post("/v1/completions", json=body).raise_for_status() for _ in range(2)]
        grown = _when_idle(operator).since(before)
    usages = [answer.json()["usage"] for answer in answers]
    num_prompt = sum(usage["prompt_tokens"] for usage in usages)
    num_cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    assert num_cached > 0, "the second request finds what the first one computed"
    expected = {
        "vllm:prompt_tokens_total": num_prompt,
        "vllm:prompt_tokens_cached_total": num_cached,
        "vllm:prefix_cache_queries_total": num_prompt,
        "vllm:prefix_cache_hits_total": num_cached,
        "vllm:generation_tokens_total": 12,
        "vllm:request_prompt_tokens_sum": num_prompt,
        "vllm:request_prefill_kv_computed_tokens_sum": num_prompt - num_cached,
        "vllm:request_generation_tokens_sum": 12,
        "vllm:request_max_num_generation_tokens_sum": 12,
        "vllm:iteration_tokens_total_sum": num_prompt - num_cached + 2 * 5,
        "vllm:time_to_first_token_seconds_count": 2,
        "vllm:inter_token_latency_seconds_count": 10,
        "vllm:e2e_request_latency_seconds_count": 2,
    }
    assert {name: grown.value(name) for name in expected} == expected
    assert grown.value("vllm:request_success_total", finished_reason="length") == 2
    prefill, decode, inference, queued = (
        grown.value(f"vllm:request_{phase}_time_seconds_sum") for phase in ("prefill", "decode", "inference", "queue")
    )
    assert prefill > 0
    assert inference == pytest.approx(prefill + decode)
    assert queued + prefill <= grown.value("vllm:time_to_first_token_seconds_sum")
    assert queued + inference <= grown.value("vllm:e2e_request_latency_seconds_sum")
    route = {"handler": "/v1/completions"}
    assert grown.value("http_requests_total", **route, method="POST", status="200") == 2
    assert grown.value("http_request_duration_seconds_count", **route, method="POST") == 2
    duration_s = grown.value("http_request_duration_seconds_sum", **route, method="POST")
    assert duration_s >= grown.value("vllm:e2e_request_latency_seconds_sum")
    assert grown.value("http_request_size_bytes_sum", **route) == sum(len(one.request.content) for one in answers)
    assert grown.value("http_response_size_bytes_sum", **route) == sum(len(one.content) for one in answers)


def test_the_live_layout_is_the_engines(live: LiveAppliance):
    """Pages and their size, as a gateway reads them to place requests."""
    with live.client("operator") as operator:
        text = operator.get("/metrics").text
    (line,) = re.findall(r"^vllm:cache_config_info\{(.*)\} 1\.0$", text, re.MULTILINE)
    layout = dict(re.findall(r'(\w+)="([^"]*)"', line))
    assert layout.keys() == {
        *("model_name", "engine", "block_size", "cache_dtype", "enable_prefix_caching", "num_gpu_blocks"),
    }
    assert int(layout["block_size"]) > 0
    assert int(layout["num_gpu_blocks"]) > 0
