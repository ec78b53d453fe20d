"""`make bench`: one table of what serving costs, and what governance adds to it.

Two arms get the same requests at the same number of streams, in turn, several times in one run: the appliance over
HTTP, and the engine alone.  Nothing is printed before every answer was counted and the log verified from its bytes.
Times are the client's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx
import torch

from appliance.audit_trail import PAIRING
from audit.checkpoint import LogVerifier
from audit.verify import verify_log
from benchmarks.arms import EngineArm, HttpArm, Times, run_streams
from benchmarks.load import Load, make_load, make_short_load
from benchmarks.model import SHAPES, text_token_ids, write_random_model
from benchmarks.scrape import Growth, read_series, sample_kv_waste
from benchmarks.table import Row, goal_lines, table_lines
from engine.config import EngineConfig, FileDigest
from engine.service import EngineService

ROOT = Path(__file__).resolve().parents[1]
STARTER = ROOT / "models" / "starter" / "weights"


def main() -> None:
    """Measure and print."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as scratch:
        folder = Path(scratch)
        num_parameters = write_random_model(folder / "model", SHAPES[options.shape], STARTER)
        with _appliance(folder, options) as (port, state_dir):
            rows = asyncio.run(_measure(options, folder, port, state_dir))
            _require_sound_log(state_dir, rows)
    _print_report(options, num_parameters, rows)


async def _measure(options: argparse.Namespace, folder: Path, port: int, state_dir: Path) -> list[Row]:
    keys = json.loads((state_dir / "dev" / "keys.json").read_text())
    engine = EngineService(_engine_config(folder / "model", options))
    http_arm, engine_arm = HttpArm(port, keys["developer"]), EngineArm(engine)
    await engine.start()
    rows: list[Row] = []
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {keys['operator']}"},
            trust_env=False,
        ) as operator:
            for row_load in _row_loads(options):
                rows.append(await _measure_row(row_load, options.rounds, http_arm, engine_arm, operator))
                print(f"measured {row_load.name}", file=sys.stderr)
    finally:
        await engine.stop(0)
    return rows


@dataclass(frozen=True, slots=True)
class RowLoad:
    """What one row of the table runs."""

    name: str
    streams: int
    make: Callable[[int], Load]
    """From a seed."""
    is_short: bool = False


def _row_loads(options: argparse.Namespace) -> list[RowLoad]:
    text_ids = text_token_ids(STARTER)
    num_short = -(-options.short_requests // options.rounds)
    short = RowLoad("1 stream, short", 1, lambda seed: make_short_load(num_short, text_ids, seed=seed), is_short=True)

    def traced(streams: int) -> RowLoad:
        num_requests = max(options.min_requests, streams * options.per_stream)
        max_len = SHAPES[options.shape].max_position_embeddings
        return RowLoad(
            f"{streams} streams" if streams > 1 else "1 stream",
            streams,
            lambda seed: make_load(num_requests, text_ids, scale=options.scale, max_len=max_len, seed=seed),
        )

    return [short, *map(traced, options.streams)]


async def _measure_row(
    row_load: RowLoad, rounds: int, http_arm: HttpArm, engine_arm: EngineArm, operator: httpx.AsyncClient
) -> Row:
    http: list[Times] = []
    alone: list[Times] = []
    waste: list[float] = []
    before = await read_series(operator)
    for number in range(rounds):
        load = row_load.make(row_load.streams * 1000 + number)
        # Whoever goes first finds the machine as the other arm does not: turn about.
        for arm in (http, alone) if number % 2 == 0 else (alone, http):
            if arm is alone:
                alone.append(await run_streams(load.requests, row_load.streams, engine_arm.ask))
                continue
            sampling = asyncio.create_task(sample_kv_waste(operator, waste))
            http.append(await run_streams(load.requests, row_load.streams, http_arm.ask))
            sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sampling
    growth = Growth(before, await read_series(operator))
    return Row(
        name=row_load.name,
        streams=row_load.streams,
        is_short=row_load.is_short,
        http=tuple(http),
        engine=tuple(alone),
        kv_waste=statistics.fmean(waste) if waste else None,
        prefix_hit=growth.prefix_hit(),
        commit_p99_s=growth.commit_quantile_s(0.99),
        two_appends_s=growth.append_s("request:admitted") + growth.append_s("request:completed"),
    )


@contextlib.contextmanager
def _appliance(folder: Path, options: argparse.Namespace) -> Iterator[tuple[int, Path]]:
    state_dir = folder / "state"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "CLOISTER_PORT": str(port),
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
        yield port, state_dir
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


def _print_report(options: argparse.Namespace, num_parameters: int, rows: Sequence[Row]) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    source = make_load(1, [0], scale=options.scale, max_len=8, seed=0).source
    print(f"{options.shape} Llama, {num_parameters / 1e6:.0f} M random parameters, {options.dtype}; {source}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, commit {commit.stdout.strip()}")
    print(f"{options.rounds} rounds, the arms in turn; median over rounds [least, greatest]; times in ms\n")
    print("\n".join(table_lines(rows)), end="\n\n")
    print("\n".join(goal_lines(rows)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="0.5b")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--rounds", type=int, default=4, help="even, so that each arm goes first as often")
    parser.add_argument("--per-stream", type=int, default=3, help="requests per stream and round")
    parser.add_argument("--min-requests", type=int, default=4)
    parser.add_argument("--short-requests", type=int, default=300, help="requests of short prompts, over all rounds")
    parser.add_argument("--scale", type=int, default=4, help="divide the trace's lengths by this")
    parser.add_argument("--kv-memory-bytes", type=int, default=512 * 2**20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
