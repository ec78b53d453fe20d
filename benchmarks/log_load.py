"""What the log's benchmark appends, how, and how long it took: real writers, events as the appliance records them.

Promise: every receipt is counted; an append that fails ends the run.  Never: prints, or verifies.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from audit.checkpoint import LogSigner
from audit.event import Event
from audit.location import LogLocation
from audit.pairing import Pairing
from audit.writer import AuditWriter, WriterConfig

SIGNER = LogSigner.from_seed("cloister.example/bench", b"\x09" * 32)
PAIRING = Pairing("request:admitted", frozenset({"request:completed"}))
PROBE_BYTES = 8_192
NUM_ACTORS, NUM_TENANTS, NUM_MODELS = 500, 20, 8


@dataclass
class Waits:
    """What one load measured."""

    append_s: list[float] = field(default_factory=list)
    """From asking to the receipt, each append."""
    commit_s: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    num_leaves: int = 0

    def observe_commit(self, seconds: float, num_leaves: int) -> None:
        """Take note, in the writer's thread."""
        self.commit_s.append(seconds)
        self.num_leaves += num_leaves


def opened(location: LogLocation, waits: Waits) -> AuditWriter:
    """Open a log as the appliance does."""
    config = WriterConfig(location, "bench", "bench-boot", min_free_bytes=0)
    return AuditWriter.open(config, [SIGNER], observe_commit=waits.observe_commit)


async def at_a_rate(location: LogLocation, requests_per_s: float, seconds: float, seed: int) -> Waits:
    """Requests come by chance at this rate, whether or not earlier ones were served; each has two records."""
    waits, draw = Waits(), random.Random(seed)
    writer = opened(location, waits)
    loop = asyncio.get_running_loop()
    started = loop.time()

    async def request(number: int, at: float, generation_s: float) -> None:
        await asyncio.sleep(at - loop.time())
        for event in request_events(number):
            asked = time.perf_counter()
            await writer.append(event)
            waits.append_s.append(time.perf_counter() - asked)
            await asyncio.sleep(generation_s)

    async with asyncio.TaskGroup() as requests:
        at, number = started, 0
        while (at := at + draw.expovariate(requests_per_s)) < started + seconds:
            requests.create_task(request(number, at, draw.uniform(0.01, 0.2)))
            number += 1
    waits.wall_s = loop.time() - started
    writer.close()
    return waits


async def by_writers(location: LogLocation, num_writers: int, num_leaves: int) -> Waits:
    """So many coroutines, each with one append under way, until there are so many leaves."""
    waits = Waits()
    writer = opened(location, waits)
    numbers = iter(range(num_leaves // 2))

    async def work() -> None:
        for number in numbers:
            for event in request_events(number):
                await writer.append(event)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as writers:
        for _ in range(num_writers):
            writers.create_task(work())
    waits.wall_s = time.perf_counter() - started
    writer.close()
    return waits


def flush_times(folder: Path, count: int) -> list[float]:
    """How long this disk takes to write 8 KiB over and flush it, as `pg_test_fsync` asks it."""
    path, data = folder / "flush.probe", os.urandom(PROBE_BYTES)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        os.pwrite(descriptor, data, 0)
        os.fsync(descriptor)
        times = []
        for _ in range(count):
            started = time.perf_counter()
            os.pwrite(descriptor, data, 0)
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - started)
        return times
    finally:
        os.close(descriptor)
        path.unlink()


def request_events(number: int) -> Iterator[Event]:
    """The two records of one request, with the facts and lengths of the appliance's own."""
    actor, model = f"user-{number * 7919 % NUM_ACTORS:03}", number % NUM_MODELS
    facts: dict[str, object] = {
        "commitments": {"prompt": {"hmac": f"{number:064x}", "key_id": f"{number % NUM_ACTORS:032x}"}},
        "content_level": "commitments",
        "decision": "allow",
        "dtype": "bfloat16",
        "engine_build": "d" * 16,
        "key_id": f"key{number % NUM_ACTORS}",
        "label": str(number % 4),
        "max_tokens_cap": None,
        "model": f"model-{model}",
        "model_root": f"{model:064x}",
        "n": 1,
        "num_prompts": 1,
        "policy_digest": "b" * 64,
        "policy_ids": ["developer-infers"],
        "prompt_tokens": number % 4_096,
        "route": "/v1/chat/completions",
        "sampling": {
            **dict.fromkeys(("frequency_penalty", "min_p", "min_tokens", "num_stop_strings", "presence_penalty"), 0),
            "ignore_eos": False,
            "logit_bias": [],
            "logprobs": None,
            "max_tokens": [256],
            "repetition_penalty": 1,
            "seed": str(number),
            "stop_token_ids": [],
            "temperature": 0.7,
            "top_k": 0,
            "top_p": 0.95,
        },
        "source": "10.0.0.17",
        "stream": True,
        "trust": "signed",
    }
    yield _event("request:admitted", actor, number, facts)
    facts = {
        "admitted_index": 2 * number,
        "cached_tokens": 0,
        "code": None,
        "commitments": {"output": {"hmac": f"{number + 1:064x}", "key_id": f"{number % NUM_ACTORS:032x}"}},
        "completion_tokens": number % 512,
        "finish_reasons": ["stop"],
        "first_token_ms": 27,
        "num_preemptions": 0,
        "outcome": "completed",
        "prompt_tokens": number % 4_096,
        "queue_ms": 0,
        "route": "/v1/chat/completions",
        "total_ms": 1_234,
        "trust": "signed",
    }
    yield _event("request:completed", actor, number, facts)


def _event(kind: str, actor: str, number: int, facts: dict[str, object]) -> Event:
    return Event(
        kind=kind,
        ts_us=time.time_ns() // 1_000,
        monotonic_ns=time.monotonic_ns(),
        actor=actor,
        role="developer",
        tenant=f"tenant-{number % NUM_TENANTS}",
        subject=f"0d8e6c1a-77aa-4e0a-8a11-{number:012x}",
        facts=facts,  # type: ignore[arg-type]  # literals of JSON, each of them
    )
