"""`make bench-log`: what the log costs, on each store, beside what the disk itself takes.

Short loads run in rounds, the stores in turn, each on a fresh log; then one large log per store is verified, proven
from and searched.  Nothing is printed before every log verified from its bytes and every receipt was counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from audit.leaf import decode_leaf
from audit.location import LogLocation, PostgresLog, parse_location
from audit.merkle import leaf_hash
from audit.provision import create_log as provision_log
from audit.reader import AuditReader
from audit.search.parser import parse_filter
from audit.store import create_log
from audit.verify import verify_log
from benchmarks.log_load import NUM_ACTORS, NUM_MODELS, PAIRING, SIGNER, at_a_rate, by_writers, flush_times

ROOT = Path(__file__).resolve().parents[1]
REQUESTS_PER_S = 200.0
NUM_WRITERS = 128
NUM_LOOKUPS = 300
PAGE_LEN = 100
OWNER, WRITER, READER = "bench_owner", "bench_writer", "bench_reader"


@dataclass(frozen=True, slots=True)
class Log:
    """One empty log, to be written and read."""

    writer: LogLocation
    reader: LogLocation
    size_bytes: Callable[[], int]


@dataclass
class Figures:
    """Of one store; each list has one entry per round."""

    flush_s: list[list[float]] = field(default_factory=list)
    wait_s: list[list[float]] = field(default_factory=list)
    commit_s: list[list[float]] = field(default_factory=list)
    leaves_per_s: list[float] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """About the large log."""


class Stores:
    """Makes empty logs."""

    def __init__(self, folder: Path, postgres: str | None) -> None:
        self._folder = folder
        self._postgres = postgres
        self._num_made = 0
        if postgres is not None:
            for role in (OWNER, WRITER, READER):
                self._sql(f"CREATE ROLE {role} LOGIN")

    @property
    def names(self) -> list[str]:
        """What there is to measure."""
        return ["SQLite"] if self._postgres is None else ["SQLite", "PostgreSQL"]

    def new_log(self, store: str) -> Log:
        """Make one."""
        self._num_made += 1
        name = f"bench_{self._num_made}"
        if store == "SQLite":
            path = self._folder / f"{name}.db"
            create_log(path, [SIGNER])
            return Log(path, path, lambda: path.stat().st_size)
        self._sql(f"CREATE DATABASE {name} OWNER {OWNER}")
        as_role = {role: PostgresLog(self._url(role, name)) for role in (OWNER, WRITER, READER)}
        provision_log(as_role[OWNER], [SIGNER], writer=WRITER, reader=READER)
        return Log(as_role[WRITER], as_role[READER], lambda: self._sql(f"SELECT pg_database_size('{name}')"))

    def _url(self, role: str, database: str) -> str:
        assert self._postgres is not None
        return self._postgres.replace("postgres@/postgres", f"{role}@/{database}")

    def _sql(self, statement: str) -> int:
        assert self._postgres is not None
        with psycopg.connect(self._postgres, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            row = cursor.fetchone() if cursor.description else None
            return 0 if row is None else int(row[0])


def main() -> None:
    """Measure and print."""
    options = _options()
    if options.verify is not None:
        _verify_alone(parse_location(options.verify))
        return
    with tempfile.TemporaryDirectory(prefix="cloister-bench-log-", dir=options.folder) as scratch:
        folder = Path(scratch)
        stores = Stores(folder, options.postgres)
        figures = {store: Figures() for store in stores.names}
        for number in range(options.rounds):
            for store in stores.names if number % 2 == 0 else reversed(stores.names):
                _one_round(stores, store, figures[store], folder, options, number)
                print(f"measured {store}, round {number}", file=sys.stderr)
        for store in stores.names:
            figures[store].lines = _large_log(stores.new_log(store), options.leaves)
    _print_report(options, figures)


def _one_round(
    stores: Stores, store: str, figures: Figures, folder: Path, options: argparse.Namespace, number: int
) -> None:
    figures.flush_s.append(flush_times(folder, options.flushes))
    log = stores.new_log(store)
    waits = asyncio.run(at_a_rate(log.writer, REQUESTS_PER_S, options.seconds, number))
    _require_sound(log, len(waits.append_s))
    figures.wait_s.append(waits.append_s)
    figures.commit_s.append(waits.commit_s)
    log = stores.new_log(store)
    waits = asyncio.run(by_writers(log.writer, NUM_WRITERS, options.burst))
    _require_sound(log, waits.num_leaves)
    figures.leaves_per_s.append(waits.num_leaves / waits.wall_s)


def _require_sound(log: Log, num_leaves: int) -> None:
    report = verify_log(log.reader, [SIGNER.verifier], PAIRING)
    if not report.ok or report.unfinished or report.num_leaves != num_leaves:
        raise SystemExit(f"the log does not verify after the load: {report.findings[:3]}, {report.num_leaves} leaves")


def _large_log(log: Log, num_leaves: int) -> list[str]:
    waits = asyncio.run(by_writers(log.writer, NUM_WRITERS, num_leaves))
    print(f"wrote {waits.num_leaves} leaves in {waits.wall_s:.0f} s", file=sys.stderr)
    named = log.reader.conninfo if isinstance(log.reader, PostgresLog) else str(log.reader)
    command = [sys.executable, "-m", "benchmarks.bench_log", "--verify", named]
    verified = json.loads(subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout)
    if verified["num_leaves"] != waits.num_leaves or not verified["ok"]:
        raise SystemExit(f"the large log does not verify: {verified}")
    with AuditReader(log.reader) as reader:
        proofs = list(_proof_times(reader, waits.num_leaves))
        pages = {what: list(_page_times(reader, text)) for what, text in _searches().items()}
    rate = waits.num_leaves / verified["seconds"]
    memory = f"memory {verified['before_mib']:.0f} MiB before and {verified['peak_mib']:.0f} MiB at its peak"
    return [
        f"written by {NUM_WRITERS} writers: {waits.num_leaves / waits.wall_s:,.0f} leaves/s",
        f"verified: {verified['seconds']:.1f} s ({rate:,.0f} leaves/s), one process, {memory}",
        f"one proof, made and checked: {_spread_ms(proofs)}",
        *(f"a page of {PAGE_LEN}, {what}: {_spread_ms(times)}" for what, times in pages.items()),
        f"{log.size_bytes() / (waits.num_leaves / 2):,.0f} bytes of log per request",
    ]


def _proof_times(reader: AuditReader, num_leaves: int) -> Iterator[float]:
    draw = random.Random(1)
    for _ in range(NUM_LOOKUPS):
        index = draw.randrange(num_leaves)
        entry = reader.entry(index)
        started = time.perf_counter()
        proof = reader.proof(index)
        proof.verify(entry.leaf_bytes, [SIGNER.verifier])
        yield time.perf_counter() - started
        if leaf_hash(entry.leaf_bytes) != entry.leaf_hash or decode_leaf(entry.leaf_bytes).index != index:
            raise SystemExit(f"entry {index} is not itself")


def _searches() -> dict[str, Callable[[random.Random], str]]:
    def actor(draw: random.Random) -> str:
        return f'actor = "user-{draw.randrange(NUM_ACTORS):03}"'

    def model(draw: random.Random) -> str:
        return f'model_root = "{draw.randrange(NUM_MODELS):064x}"'

    return {
        "everything": lambda _: "",
        "one actor": actor,
        "one actor and one model": lambda draw: f"{actor(draw)} and {model(draw)}",
        "one of two actors, admitted": lambda draw: f'({actor(draw)} or {actor(draw)}) and kind = "request:admitted"',
        "nothing fits": lambda draw: f'actor = "nobody" and {model(draw)}',
    }


def _page_times(reader: AuditReader, text: Callable[[random.Random], str]) -> Iterator[float]:
    draw, size = random.Random(2), reader.head().checkpoint.size
    for _ in range(NUM_LOOKUPS):
        expression, after = parse_filter(text(draw)), draw.randrange(1, size + 1)
        started = time.perf_counter()
        page = reader.entries(expression, after=after, limit=PAGE_LEN, newest=True)
        yield time.perf_counter() - started
        if any(entry.index >= after for entry in page.entries):
            raise SystemExit("a page went beyond its beginning")


def _verify_alone(location: LogLocation) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    report = verify_log(location, [SIGNER.verifier], PAIRING)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ok = report.ok and not report.unfinished
    said = {"ok": ok, "num_leaves": report.num_leaves, "seconds": seconds}
    print(json.dumps({**said, "before_mib": before / 1024, "peak_mib": peak / 1024}))


def _print_report(options: argparse.Namespace, figures: dict[str, Figures]) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, SQLite {sqlite3.sqlite_version}, commit {commit.stdout.strip()}"
    )
    print(f"{options.rounds} rounds, the stores in turn; median over rounds [least, greatest]; times in ms\n")
    print("| store | 8 KiB written and flushed, p50 | p99 | commit p50 | commit p99 | wait p50 | wait p99 | leaves/s |")
    print("|---|---|---|---|---|---|---|---|")
    for store, of_store in figures.items():
        cells = [
            *(_cell(of_store.flush_s, share) for share in (0.5, 0.99)),
            *(_cell(of_store.commit_s, share) for share in (0.5, 0.99)),
            *(_cell(of_store.wait_s, share) for share in (0.5, 0.99)),
            _over_rounds(of_store.leaves_per_s, "{:,.0f}"),
        ]
        print(f"| {store} | {' | '.join(cells)} |")
    print(f"\nwait: from asking to the receipt, at {REQUESTS_PER_S:.0f} requests/s by chance, two appends each")
    print(f"leaves/s: {NUM_WRITERS} writers, {options.burst:,} leaves\n")
    for store, of_store in figures.items():
        ratios = [
            _quantile(w, 0.99) / _quantile(c, 0.99) for w, c in zip(of_store.wait_s, of_store.commit_s, strict=True)
        ]
        print(f"{store}: a wait at p99 is {_over_rounds(ratios, '{:.2f}')} commits at p99 (goal: at most 2)")
        print(f"{store}, {options.leaves:,} leaves:")
        for line in of_store.lines:
            print(f"- {line}")


def _cell(rounds: Sequence[Sequence[float]], share: float) -> str:
    return _over_rounds([1e3 * _quantile(times, share) for times in rounds], "{:.2f}")


def _over_rounds(values: Sequence[float], shape: str) -> str:
    median, least, greatest = (shape.format(v) for v in (statistics.median(values), min(values), max(values)))
    return f"{median} [{least}, {greatest}]"


def _spread_ms(times: Sequence[float]) -> str:
    p50, p99, most = (1e3 * value for value in (_quantile(times, 0.5), _quantile(times, 0.99), max(times)))
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, most {most:.2f} ms"


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of the load at a rate")
    parser.add_argument("--burst", type=int, default=40_000, help="leaves per round by many writers")
    parser.add_argument("--leaves", type=int, default=1_000_000, help="of the large log")
    parser.add_argument("--flushes", type=int, default=300, help="of the disk, per round")
    parser.add_argument("--folder", type=Path, default=ROOT, help="on the disk to measure")
    postgres = os.environ.get("CLOISTER_BENCH_POSTGRES")
    parser.add_argument("--postgres", default=postgres, help="URL of an own server's master: postgres@/postgres")
    parser.add_argument("--verify", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
