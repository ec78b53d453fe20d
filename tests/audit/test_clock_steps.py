"""Clocks that are set under load and between two runs: the log stops, loses nothing, and says later what happened."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_log_builder import PAIRING, SIGNER, event_now

from audit.errors import AuditHalted
from audit.event import Event, Receipt
from audit.guards import Clocks
from audit.reader import AuditReader
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterState

OpenWriter = Callable[..., AuditWriter]
HOUR_US = 3_600_000_000
NUM_APPENDERS = 4
RECEIPTS_BEFORE_THE_STEP = 40


class SetClocks:
    """The machine's clocks, with a wall clock that can be set."""

    def __init__(self, step_us: int = 0) -> None:
        self.step_us = step_us
        self.clocks = Clocks(wall_us=lambda: time.time_ns() // 1_000 + self.step_us, monotonic_ns=time.monotonic_ns)

    def event(self, subject: str) -> Event:
        """Something that happens now, by these clocks."""
        now = event_now(0, "a:b", subject)
        return dataclasses.replace(now, ts_us=self.clocks.wall_us(), monotonic_ns=self.clocks.monotonic_ns())


class Load:
    """Threads that append until the log stops; the clock is set once enough was acknowledged."""

    def __init__(self, writer: AuditWriter, clocks: SetClocks, step_us: int) -> None:
        self._writer = writer
        self._clocks = clocks
        self._step_us = step_us
        self._lock = threading.Lock()
        self.receipts: list[Receipt] = []
        self.reasons: list[str] = []

    def run(self) -> None:
        """Append from several threads until each of them was told why not."""
        threads = [threading.Thread(target=self._append, args=(f"thread-{n}",)) for n in range(NUM_APPENDERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _append(self, name: str) -> None:
        while True:
            try:
                receipt = self._writer.submit(self._clocks.event(name)).result()
            except AuditHalted as halted:
                self.reasons.append(halted.reason)
                return
            with self._lock:
                self.receipts.append(receipt)
                if len(self.receipts) == RECEIPTS_BEFORE_THE_STEP:
                    self._clocks.step_us += self._step_us


def assert_recorded(path: Path, receipts: list[Receipt]) -> tuple[str, ...]:
    """The log verifies and holds every receipt; return what the verifier notes beside."""
    report = verify_log(path, [SIGNER.verifier], PAIRING)
    assert report.findings == ()
    with AuditReader(path) as reader:
        for receipt in receipts:
            assert reader.entry(receipt.index).leaf_hash.hex() == receipt.leaf_hash
    return report.notes


@pytest.mark.parametrize("step_us", [HOUR_US, -HOUR_US, -6_000_000], ids=["+1 h", "-1 h", "-6 s"])
def test_a_clock_set_under_load_stops_everybody_and_loses_nobody(
    open_writer: OpenWriter, log_path: Path, step_us: int
) -> None:
    """All who wait hear the reason; after a restart by the new time the log goes on, and the way back is noted."""
    clocks = SetClocks()
    writer = open_writer(clocks=clocks.clocks)
    load = Load(writer, clocks, step_us)
    load.run()
    writer.close()
    assert writer.state is WriterState.HALTED
    assert len(load.reasons) == NUM_APPENDERS
    assert all("the clock was set" in reason for reason in load.reasons)
    assert len(load.receipts) >= RECEIPTS_BEFORE_THE_STEP
    assert_recorded(log_path, load.receipts)
    again = open_writer(clocks=clocks.clocks)
    receipt = again.submit(clocks.event("after")).result()
    again.close()
    notes = assert_recorded(log_path, [*load.receipts, receipt])
    assert any("the clock went back" in one for one in notes) is (step_us < 0)


@pytest.mark.parametrize("steps_us", [(HOUR_US, -HOUR_US), (-HOUR_US, HOUR_US), (-HOUR_US, -HOUR_US)])
def test_a_clock_set_while_the_log_was_shut_is_noted_and_no_finding(
    open_writer: OpenWriter, log_path: Path, steps_us: tuple[int, ...]
) -> None:
    """Nobody could have seen it: each run agrees with itself, and an hour back between two runs is in the notes."""
    clocks, receipts = SetClocks(), []
    for step_us in (0, *steps_us):
        clocks.step_us += step_us
        writer = open_writer(clocks=clocks.clocks)
        receipts += [writer.submit(clocks.event("one")).result() for _ in range(3)]
        writer.close()
    notes = assert_recorded(log_path, receipts)
    went_back = [note for note in notes if "the clock went back" in note]
    assert len(went_back) == sum(step_us < 0 for step_us in steps_us)


def test_a_time_daemon_that_slews_does_not_stop_the_log(open_writer: OpenWriter, log_path: Path) -> None:
    """Wall time runs a little faster for two hours, 500 us a second, which no single look may take for a step."""
    monotonic_ns = 10**15
    wall_us = 1_800_000_000_000_000

    def advance(seconds: int) -> None:
        nonlocal monotonic_ns, wall_us
        monotonic_ns += seconds * 10**9
        wall_us += seconds * 1_000_000 + seconds * 500

    writer = open_writer(clocks=Clocks(wall_us=lambda: wall_us, monotonic_ns=lambda: monotonic_ns))
    receipts = []
    for _ in range(120):
        event = dataclasses.replace(event_now(0, "a:b"), ts_us=wall_us, monotonic_ns=monotonic_ns)
        receipts.append(writer.submit(event).result())
        advance(60)
    writer.close()
    assert writer.state is WriterState.CLOSED
    assert_recorded(log_path, receipts)
