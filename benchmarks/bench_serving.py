"""`make bench`: one table of what serving costs, and what governance adds to it.

Two arms get the same requests at the same number of streams, in turn, several times in one run: the appliance over
HTTP, and the engine alone.  Nothing is printed before every answer was counted and the log verified from its bytes.
Times are the client's; each figure is the median over the rounds, with its least and greatest.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx
import torch

from appliance.audit_trail import PAIRING
from audit.checkpoint import LogVerifier
from audit.verify import verify_log
from benchmarks.arms import EngineArm, HttpArm, Times, run_streams
from benchmarks.load import Load, make_load
from benchmarks.model import SHAPES, text_token_ids, write_random_model
from engine.config import EngineConfig, FileDigest
from engine.service import EngineService

ROOT = Path(__file__).resolve().parents[1]
STARTER = ROOT / "models" / "starter" / "weights"
PORT = 8699
SAMPLE_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Row:
    """One number of streams, both arms, all rounds."""

    streams: int
    http: tuple[Times, ...]
    engine: tuple[Times, ...]
    kv_waste: float
    """Mean over the samples taken while requests ran."""
    prefix_hit: float
    commits_s: float
    """Mean wait for the two records of a request, together."""


def main() -> None:
    """Measure and print."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as scratch:
        folder = Path(scratch)
        num_parameters = write_random_model(folder / "model", SHAPES[options.shape], STARTER)
        with _appliance(folder, options) as (url, state_dir):
            rows, load = asyncio.run(_measure(options, folder, url, state_dir))
            _require_sound_log(state_dir, rows)
    _print_table(options, num_parameters, load, rows)


async def _measure(options: argparse.Namespace, folder: Path, url: str, state_dir: Path) -> tuple[list[Row], Load]:
    keys = json.loads((state_dir / "dev" / "keys.json").read_text())
    engine = EngineService(_engine_config(folder / "model", options))
    http_arm = HttpArm(url, keys["developer"])
    await engine.start()
    engine_arm = EngineArm(engine)
    rows = []
    load = make_load(1, [1], scale=1, max_len=8, seed=0)
    try:
        async with httpx.AsyncClient(
            base_url=url, headers={"authorization": f"Bearer {keys['operator']}"}, trust_env=False
        ) as operator:
            for streams in options.streams:
                http: list[Times] = []
                alone: list[Times] = []
                waste: list[float] = []
                before = await _series(operator)
                for number in range(options.rounds):
                    load = make_load(
                        max(options.min_requests, streams * options.per_stream),
                        text_token_ids(STARTER),
                        scale=options.scale,
                        max_len=SHAPES[options.shape].max_position_embeddings,
                        seed=streams * 1000 + number,
                    )
                    sampling = asyncio.create_task(_sample_waste(operator, waste))
                    http.append(await run_streams(load.requests, streams, http_arm.ask))
                    sampling.cancel()
                    alone.append(await run_streams(load.requests, streams, engine_arm.ask))
                after = await _series(operator)
                rows.append(_row(streams, http, alone, waste, before, after))
                print(f"measured {streams} streams", file=sys.stderr)
    finally:
        await http_arm.close()
        await engine.stop(0)
    return rows, load


def _row(
    streams: int,
    http: Sequence[Times],
    alone: Sequence[Times],
    waste: Sequence[float],
    before: dict[str, float],
    after: dict[str, float],
) -> Row:
    def grown(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    commits_s = sum(
        grown(f'cloister_audit_append_seconds_sum{{kind="{kind}"}}')
        / grown(f'cloister_audit_append_seconds_count{{kind="{kind}"}}')
        for kind in ("request:admitted", "request:completed")
    )
    return Row(
        streams=streams,
        http=tuple(http),
        engine=tuple(alone),
        kv_waste=statistics.fmean(waste) if waste else 0.0,
        prefix_hit=grown("vllm:prefix_cache_hits_total") / max(1.0, grown("vllm:prefix_cache_queries_total")),
        commits_s=commits_s,
    )


async def _series(operator: httpx.AsyncClient) -> dict[str, float]:
    """Give the counters that a row needs, by name; engine labels are dropped, since there is one engine."""
    text = (await operator.get("/metrics")).raise_for_status().text
    found = re.findall(r"^([a-z_:]+)(\{[^}]*\})? ([0-9.e+-]+)$", text, re.MULTILINE)
    return {name + ("" if "model_name" in labels else labels): float(value) for name, labels, value in found}


async def _sample_waste(operator: httpx.AsyncClient, samples: list[float]) -> None:
    while True:
        series = await _series(operator)
        if series.get("vllm:num_requests_running", 0.0) > 0:
            samples.append(series["cloister_kv_waste_ratio"])
        await asyncio.sleep(SAMPLE_EVERY_S)


@contextlib.contextmanager
def _appliance(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    state_dir = folder / "state"
    environment = {
        **os.environ,
        "CLOISTER_PORT": str(PORT),
        "CLOISTER_STATE_DIR": str(state_dir),
        "CLOISTER_STARTER_DIR": str(folder / "model"),
        "CLOISTER_DTYPE": options.dtype,
        "CLOISTER_KV_MEMORY_BYTES": str(options.kv_memory_bytes),
        "CLOISTER_LOG_LEVEL": "warning",
    }
    command = [str(Path(sys.executable).parent / "cloister"), "serve", "--development"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None, "standard output is a pipe"
        for line in process.stdout:
            if line.startswith("Stop with Ctrl-C"):
                break
        else:
            raise SystemExit("the appliance did not start")
        yield f"http://127.0.0.1:{PORT}", state_dir
    finally:
        process.terminate()
        process.wait()


def _engine_config(folder: Path, options: argparse.Namespace) -> EngineConfig:
    names = ("config.json", "generation_config.json", "model.safetensors")
    present = [name for name in names if (folder / name).exists()]
    digests = tuple(FileDigest(name, sha256((folder / name).read_bytes()).hexdigest()) for name in present)
    return EngineConfig(str(folder), digests, dtype=options.dtype, kv_memory_bytes=options.kv_memory_bytes)


def _require_sound_log(state_dir: Path, rows: Sequence[Row]) -> None:
    vkey = (state_dir / "log" / "verifier.vkey").read_text().strip()
    report = verify_log(state_dir / "log" / "audit.db", [LogVerifier.from_vkey(vkey)], PAIRING)
    receipts = [receipt for row in rows for times in row.http for receipt in times.receipts]
    if not report.ok or report.unfinished or len(set(receipts)) != len(receipts):
        raise SystemExit(f"the log does not verify after the load: {report.findings[:3]} {report.unfinished[:3]}")


def _print_table(options: argparse.Namespace, num_parameters: int, load: Load, rows: Sequence[Row]) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(f"{options.shape} Llama, {num_parameters / 1e6:.0f} M random parameters, {options.dtype}; {load.source}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, commit {commit.stdout.strip()}")
    print(f"{options.rounds} rounds, both arms in turn; median over rounds [least, greatest]; times in ms\n")
    print("| streams | arm | TTFT p50 | TTFT p99 | ITL p50 | ITL p99 | output tok/s |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        for name, arm in (("appliance", row.http), ("engine alone", row.engine)):
            print(f"| {row.streams} | {name} | {' | '.join(_cells(arm))} |")
    print("\n| streams | tok/s, appliance : engine | TTFT p99 added | two commits | KV waste | prefix hit |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        ratios = [a.tokens_per_s / b.tokens_per_s for a, b in zip(row.http, row.engine, strict=True)]
        added = [
            1000 * (_quantile(a.ttft_s, 0.99) - _quantile(b.ttft_s, 0.99))
            for a, b in zip(row.http, row.engine, strict=True)
        ]
        print(
            f"| {row.streams} | {_spread(ratios, 3)} | {_spread(added, 1)} | {1000 * row.commits_s:.1f} "
            f"| {row.kv_waste:.1%} | {row.prefix_hit:.1%} |"
        )


def _cells(arm: Sequence[Times]) -> list[str]:
    cells = [
        _spread([1000 * _quantile(getattr(times, name), quantile) for times in arm], 1)
        for name in ("ttft_s", "itl_s")
        for quantile in (0.5, 0.99)
    ]
    return [*cells, _spread([times.tokens_per_s for times in arm], 1)]


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def _quantile(values: Sequence[float], quantile: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="0.5b")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-stream", type=int, default=2, help="requests per stream and round")
    parser.add_argument("--min-requests", type=int, default=4)
    parser.add_argument("--scale", type=int, default=8, help="divide the trace's lengths by this")
    parser.add_argument("--kv-memory-bytes", type=int, default=512 * 2**20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
