"""Time pages of a search over a log of a million entries, and say what the disk does.

    python benchmarks/search_pages.py FOLDER [NUM_ENTRIES]

Makes FOLDER/audit.db where there is none (about a minute and 1.4 GB for a million entries, the same on every run), then
asks each filter ten times, oldest and newest first, from both ends and from the middle, and prints milliseconds: those
of the processor, which a busy machine does not stretch, and those of the wall.
The first question about a time reads the times of the whole log once; it stands in a line of its own.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from audit.batch import plan_batch
from audit.checkpoint import LogSigner
from audit.event import Event
from audit.leaf import Place, draft_leaf
from audit.merkle import EMPTY_EDGE
from audit.reader import AuditReader
from audit.schema import checkpoint_table, leaf_policy_table, leaf_table, node_table
from audit.search.parser import parse_filter
from audit.store import bulk_insert, create_log, open_engine

SIGNER = LogSigner.from_seed("cloister.example/log", b"\x07" * 32)
START_US, PACE_US = 1_763_964_000_000_000, 500_000
BATCH_LEN, PAGE_LEN, ROUNDS = 256, 100, 10
FILTERS = (
    "",
    "kind=request:denied",
    "kind=request:denied and policy=label-within-clearance",
    "kind=request:denied and actor=user-7",
    "kind=request:denied and (actor=user-7 or actor=user-9) and time>=2025-11-25",
    "time=2025-11-25T08",
    "kind=log:read and time>=2025-11-25T08",
    "tenant=tenant-1 and kind=request:denied and label=2 and actor=user-3",
    "outcome!=completed and route=/v1/chat/completions",
    "subject=req-00000000000000000007a121",
    "kind=nothing:here",
    "role=auditor",
    "kind=log:read and decision=allow",
    "decision=allow and outcome=completed",
    "label in (0,1,2,3) and tenant in (tenant-0,tenant-1,tenant-2) and actor in (user-1,user-2,user-3,user-4)",
)


def main() -> None:
    """Build where need be, ask, print."""
    folder, num_entries = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000  # noqa: PLR2004
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "audit.db"
    if not path.exists():
        _build(path, num_entries)
    print(f"fsync of one page: {_fsync_ms(folder):.2f} ms; {path.stat().st_size / 2**30:.2f} GiB")
    with AuditReader(path) as reader:
        size = reader.head().checkpoint.size
        started = time.perf_counter()
        reader.entries(parse_filter("time>=2200-01-01"), limit=1)
        print(f"{size} entries; first question about a time: {(time.perf_counter() - started) * 1e3:.0f} ms")
        print(f"{'filter':<72} {'cpu':>7} {'median':>7} {'worst':>7}  ms, page of {PAGE_LEN}")
        for text in FILTERS:
            cpu_times, times, shorts = _ask(reader, text, size)
            note = f"  {shorts} of {len(times)} pages gave up early" if shorts else ""
            cpu_ms, median_ms = statistics.median(cpu_times), statistics.median(times)
            print(f"{text[:72]:<72} {cpu_ms:7.1f} {median_ms:7.1f} {max(times):7.1f}{note}")


def _ask(reader: AuditReader, text: str, size: int) -> tuple[list[float], list[float], int]:
    expression, shorts = parse_filter(text), 0
    cpu_times: list[float] = []
    times: list[float] = []
    for _ in range(ROUNDS):
        for newest in (False, True):
            for after in (None, size // 2):
                started, cpu_started = time.perf_counter(), time.thread_time()
                page = reader.entries(expression, after=after, limit=PAGE_LEN, newest=newest)
                times.append((time.perf_counter() - started) * 1e3)
                cpu_times.append((time.thread_time() - cpu_started) * 1e3)
                shorts += len(page.entries) < PAGE_LEN and page.next_after is not None
    return cpu_times, times, shorts


def _build(path: Path, num_entries: int) -> None:
    create_log(path, [SIGNER])
    engine, edge, place = open_engine(path, read_only=False), EMPTY_EDGE, Place("node-1", "boot-1", 1)
    batch: list[Event] = []
    with engine.begin() as connection:
        for number, event in enumerate(_events(num_entries), 1):
            batch.append(event)
            if len(batch) == BATCH_LEN or number == num_entries:
                plan = plan_batch(edge, [draft_leaf(one, place) for one in batch], [SIGNER])
                bulk_insert(connection, leaf_table, plan.leaf_rows)
                bulk_insert(connection, leaf_policy_table, plan.policy_rows)
                bulk_insert(connection, node_table, plan.node_rows)
                bulk_insert(connection, checkpoint_table, (plan.checkpoint_row,))
                edge, batch = plan.edge, []
    engine.dispose()


def _events(num_entries: int) -> Iterator[Event]:
    """Requests as the appliance records them: 2 in 100 denied, 1 a read of the log, the rest two records each."""
    draw, us, index = random.Random(1), START_US, 0
    while index < num_entries:
        us += PACE_US
        for event in _records(draw, us, index)[: num_entries - index]:
            yield event
            index += 1


def _records(draw: random.Random, us: int, index: int) -> list[Event]:
    actor, tenant = f"user-{draw.randrange(50)}", f"tenant-{draw.randrange(5)}"
    route = "/v1/chat/completions"
    common = {"key_id": "k" * 12, "label": str(draw.randrange(4)), "route": route, "source": "10.1.2.3"}

    def event(kind: str, at_us: int, facts: dict[str, object], who: str = actor, role: str = "developer") -> Event:
        mono_ns = (at_us - START_US) * 1_000
        return Event(kind, at_us, mono_ns, who, role, tenant, f"req-{index:024x}", facts)  # type: ignore[arg-type]

    chance = draw.random()
    if chance < 0.02:  # noqa: PLR2004 - 2 in 100
        facts = {"decision": "deny", "outcome": "denied", "policy_ids": ["label-within-clearance"]}
        return [event("request:denied", us, {**common, **facts})]
    if chance < 0.03:  # noqa: PLR2004 - 1 in 100
        return [event("log:read", us, {"source": "10.1.2.4", "what": "entries"}, "avery", "auditor")]
    commitments = {"prompt": {"hmac": "c" * 64, "key_id": "d" * 32}}
    admitted = {
        "commitments": commitments,
        "decision": "allow",
        "model_root": "ab" * 32,
        "policy_digest": "e" * 64,
        "policy_ids": ["developer-infers"],
        "prompt_tokens": draw.randrange(2_000),
        "sampling": {"max_tokens": [256], "seed": "123456", "temperature": 0.7},
    }
    outcome = "completed" if draw.random() < 0.97 else "failed"  # noqa: PLR2004 - 3 in 100
    ended = {
        "admitted_index": index,
        "commitments": commitments,
        "completion_tokens": draw.randrange(500),
        "first_token_ms": draw.randrange(300),
        "outcome": outcome,
        "prompt_tokens": 100,
        "queue_ms": draw.randrange(50),
        "total_ms": draw.randrange(5_000),
    }
    return [
        event("request:admitted", us, {**common, **admitted}),
        event(f"request:{outcome}", us + PACE_US // 2, {**common, **ended}),
    ]


def _fsync_ms(folder: Path) -> float:
    probe = folder / "fsync.probe"
    times: list[float] = []
    with probe.open("wb") as file:
        for _ in range(20):
            file.write(b"\0" * 4096)
            file.flush()
            started = time.perf_counter()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - started) * 1e3)
    probe.unlink()
    return statistics.median(times)


if __name__ == "__main__":
    main()
