"""Builds logs with chosen batch boundaries, and events that differ in every field a test may look at."""

from __future__ import annotations

import dataclasses
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from audit.batch import plan_batch
from audit.checkpoint import LogSigner
from audit.event import Event
from audit.leaf import DraftLeaf, Place, draft_leaf
from audit.location import LogLocation
from audit.merkle import EMPTY_EDGE
from audit.open_log import _insert_rows
from audit.pairing import Pairing
from audit.store import create_log, open_engine

SIGNER = LogSigner.from_seed("cloister.example/log", b"\x07" * 32)
OTHER_SIGNER = LogSigner.from_seed("cloister.example/log", b"\x08" * 32)
PLACE = Place("node-1", "0d8e6c1a-boot", 1)
PAIRING = Pairing("request:admitted", frozenset({"request:completed", "request:failed", "request:cancelled"}))
START_US = 1_763_964_000_000_000


def make_event(number: int, kind: str = "request:admitted", subject: str | None = None, **facts: object) -> Event:
    """Return an event at second `number`."""
    return Event(
        kind=kind,
        ts_us=START_US + number * 1_000_000,
        monotonic_ns=5_000_000_000 + number * 1_000_000_000,
        actor=f"key-{number % 3}",
        role="developer",
        tenant=f"tenant-{number % 2}",
        subject=f"req-{number}" if subject is None else subject,
        facts={"route": "/v1/chat/completions", "decision": "allow", "model_root": "ab" * 32, "seed": number, **facts},
    )


def event_now(number: int, kind: str = "request:admitted", subject: str | None = None) -> Event:
    """Return an event that happens now, as a live writer demands."""
    event = make_event(number, kind, subject)
    return dataclasses.replace(event, ts_us=time.time_ns() // 1_000, monotonic_ns=time.monotonic_ns())


def request_events(num_requests: int) -> list[Event]:
    """Admissions and their ends, the end two places after its beginning; the last request is still running."""
    events: list[Event] = []
    for number in range(num_requests):
        events.append(make_event(2 * number, subject=f"req-{number}"))
        if number:
            ended = make_event(2 * number + 1, "request:completed", f"req-{number - 1}", outcome="completed")
            events.append(ended)
    return events


def build_log(path: Path, events: Sequence[Event], batch_lens: Sequence[int], signer: LogSigner = SIGNER) -> None:
    """Write a log whose commits have exactly these lengths."""
    assert sum(batch_lens) == len(events)
    create_log(path, [signer])
    append_batches(path, events, batch_lens, signer)


def append_batches(
    location: LogLocation, events: Sequence[Event], batch_lens: Sequence[int], signer: LogSigner
) -> None:
    """Extend an empty log with batches of exactly these lengths."""
    append_drafts(location, [draft_leaf(event, PLACE) for event in events], batch_lens, signer)


def append_drafts(
    location: LogLocation, drafts: Sequence[DraftLeaf], batch_lens: Sequence[int], signer: LogSigner
) -> None:
    """The same with leaves that have something beside them."""
    engine = open_engine(location, read_only=False)
    edge, start = EMPTY_EDGE, 0
    for batch_len in batch_lens:
        plan = plan_batch(edge, drafts[start : start + batch_len], [signer])
        with engine.begin() as connection:
            _insert_rows(connection, plan)
        edge, start = plan.edge, start + batch_len
    engine.dispose()


@contextmanager
def attacker(path: Path) -> Iterator[sqlite3.Connection]:
    """Edit a log as its operating system's owner can: triggers dropped before, put back as they were after."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    try:
        yield connection
    finally:
        for _, sql in triggers:
            connection.execute(sql)
        connection.close()
