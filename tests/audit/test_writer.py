from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from audit_log_builder import OTHER_SIGNER, PAIRING, SIGNER, event_now
from log_places import LogPlace

from audit.errors import (
    AuditCorrupt,
    AuditHalted,
    AuditQueueFull,
    AuditRefused,
    LogMissing,
    SettingRefused,
    WriterLocked,
)
from audit.event import Receipt
from audit.guards import Clocks
from audit.leaf import decode_leaf
from audit.merkle import leaf_hash
from audit.reader import AuditReader
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig, WriterState

OpenWriter = Callable[..., AuditWriter]


def assert_verifies(place: LogPlace, num_leaves: int) -> None:
    """Hold the whole log against its bytes."""
    report = verify_log(place.reader, [SIGNER.verifier], PAIRING)
    assert report.findings == ()
    assert report.num_leaves == num_leaves == report.head_size


def test_a_receipt_names_a_leaf_that_another_connection_already_sees(open_writer: OpenWriter, place: LogPlace) -> None:
    """Durable first, receipt then: index, hash and size are those on disk."""
    writer = open_writer()
    receipt = writer.submit(event_now(0)).result()
    with place.master() as other:
        [leaf_bytes] = other.column(f"SELECT leaf_bytes FROM leaf WHERE idx = {receipt.index}")
        sizes = other.column("SELECT size FROM checkpoint ORDER BY size")
    assert receipt == Receipt(0, leaf_hash(leaf_bytes).hex(), 1)
    assert sizes == [0, 1]
    assert decode_leaf(leaf_bytes).event.subject == "req-0"


async def test_coroutines_and_threads_share_one_gapless_order(open_writer: OpenWriter, place: LogPlace) -> None:
    """Every accepted event gets one index, whoever appended it."""
    writer = open_writer()
    futures: list[object] = []

    def from_thread(first: int) -> None:
        futures.extend(writer.submit(event_now(number)) for number in range(first, first + 50))

    threads = [threading.Thread(target=from_thread, args=(1_000 * number,)) for number in range(1, 4)]
    for thread in threads:
        thread.start()
    receipts = await asyncio.gather(*(writer.append(event_now(number)) for number in range(100)))
    for thread in threads:
        thread.join()
    indexes = sorted([receipt.index for receipt in receipts] + [future.result().index for future in futures])
    assert indexes == list(range(250))
    assert writer.close().size == 250
    assert_verifies(place, 250)


@pytest.mark.usefixtures("place")
async def test_waiting_events_share_one_commit(open_writer: OpenWriter) -> None:
    """What waits while one commit runs goes into the next one together, at most a batch."""
    batches: list[int] = []
    writer = open_writer(config={"max_batch_len": 32}, observe_commit=lambda _, num_leaves: batches.append(num_leaves))
    await asyncio.gather(*(writer.append(event_now(number)) for number in range(100)))
    writer.close()
    assert sum(batches) == 100
    assert len(batches) < 100
    assert max(batches) <= 32


async def test_cancelling_the_wait_never_cancels_the_record(open_writer: OpenWriter, place: LogPlace) -> None:
    """The client went away; what happened has still happened."""
    writer = open_writer()
    task = asyncio.create_task(writer.append(event_now(0)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert writer.close().size == 1
    assert_verifies(place, 1)


def test_a_loop_that_is_gone_does_not_stop_the_writer(open_writer: OpenWriter, place: LogPlace) -> None:
    """Nobody is left to be told; the others are served."""
    writer = open_writer()
    gate = threading.Event()
    writer._observe_commit = lambda *_: gate.wait()  # the writer stands still after its first commit
    writer.submit(event_now(0)).result()
    loop = asyncio.new_event_loop()
    coroutine = writer.append(event_now(1))
    task = loop.create_task(coroutine)
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    last = writer.submit(event_now(2))
    gate.set()
    assert last.result().index == 2
    writer.close()
    assert_verifies(place, 3)


def test_a_bad_event_is_refused_alone(open_writer: OpenWriter, place: LogPlace) -> None:
    """Its caller hears why; the log goes on without it."""
    writer = open_writer()
    with pytest.raises(AuditRefused):
        writer.submit(dataclasses.replace(event_now(0), kind="nonsense"))
    askew = writer.submit(dataclasses.replace(event_now(1), ts_us=1))
    good = writer.submit(event_now(2))
    with pytest.raises(AuditRefused, match="clock"):
        askew.result()
    assert good.result().index == 0
    writer.close()
    assert_verifies(place, 1)


def test_a_full_queue_refuses_and_forgets_nothing_it_took(open_writer: OpenWriter, place: LogPlace) -> None:
    """Bounded means refused at the bound, and served below it."""
    writer = open_writer(config={"queue_len": 3})
    gate = threading.Event()
    writer._observe_commit = lambda *_: gate.wait()
    first = writer.submit(event_now(0))
    first.result()
    waiting = [writer.submit(event_now(number)) for number in range(1, 4)]
    with pytest.raises(AuditQueueFull):
        writer.submit(event_now(4))
    assert writer.num_waiting == 3
    gate.set()
    assert [future.result().index for future in waiting] == [1, 2, 3]
    writer.close()
    assert_verifies(place, 4)


def test_a_closed_writer_has_recorded_everything_and_takes_nothing(open_writer: OpenWriter, place: LogPlace) -> None:
    """Closing drains the line, empties the write-ahead log and lets the next writer in."""
    writer = open_writer()
    futures = [writer.submit(event_now(number)) for number in range(20)]
    head = writer.close()
    assert (head.size, writer.state) == (20, WriterState.CLOSED)
    assert all(future.done() for future in futures)
    if isinstance(place.writer, Path):
        assert not place.writer.with_name("audit.db-wal").exists()
    with pytest.raises(AuditHalted, match="closed"):
        writer.submit(event_now(20))
    assert writer.close() == head
    reopened = open_writer()
    assert reopened.head == head
    assert reopened.epoch == writer.epoch + 1


@pytest.mark.usefixtures("place")
def test_a_second_writer_is_refused(open_writer: OpenWriter) -> None:
    """Two would fork the log."""
    open_writer()
    with pytest.raises(WriterLocked):
        open_writer()


def test_a_missing_log_is_not_made_by_opening_it(tmp_path: Path) -> None:
    """Not even the lock file is."""
    with pytest.raises(LogMissing):
        AuditWriter.open(WriterConfig(tmp_path / "none.db", "n", "b"), [SIGNER])
    assert list(tmp_path.iterdir()) == []


def test_every_opening_has_its_own_epoch(open_writer: OpenWriter, place: LogPlace) -> None:
    """Each leaf says which run of the writer wrote it."""
    for number in range(3):
        writer = open_writer()
        writer.submit(event_now(number)).result()
        writer.close()
    with AuditReader(place.reader) as reader:
        assert [entry.leaf.place.epoch for entry in reader.entries().entries] == [1, 2, 3]
    assert_verifies(place, 3)


def test_the_log_key_rotates_with_a_double_signature(open_writer: OpenWriter, place: LogPlace) -> None:
    """Old and new verifiers accept the head while both keys sign; afterwards the old key is named as an earlier one."""
    open_writer().close()
    config = WriterConfig(place.writer, "node-1", "boot-1", min_free_bytes=0)
    with pytest.raises(AuditCorrupt, match="known key"):
        AuditWriter.open(config, [OTHER_SIGNER])
    both = AuditWriter.open(config, [OTHER_SIGNER, SIGNER])
    both.submit(event_now(0)).result()
    head = both.close()
    with AuditReader(place.reader) as reader:
        note = reader.head().note
    assert SIGNER.verifier.open(note) == OTHER_SIGNER.verifier.open(note) == head
    after = AuditWriter.open(config, [OTHER_SIGNER], earlier_verifiers=[SIGNER.verifier])
    after.submit(event_now(1)).result()
    after.close()
    assert verify_log(place.reader, [SIGNER.verifier, OTHER_SIGNER.verifier], None).ok


@pytest.mark.parametrize(
    ("tamper", "index"),
    [
        ("DELETE FROM leaf WHERE idx = 4", 4),
        ("UPDATE leaf SET leaf_bytes = {zeros} WHERE idx = 4", 4),
        ("UPDATE leaf SET leaf_hash = {zeros} WHERE idx = 4", None),
        ("DELETE FROM node WHERE level = 2", None),
        ("UPDATE node SET hash = {zeros} WHERE level = 2", None),
        ("UPDATE checkpoint SET root = {zeros} WHERE size = 5", None),
        ("UPDATE checkpoint SET note = note || 'x' WHERE size = 5", None),
        ("DELETE FROM checkpoint", None),
    ],
)
def test_a_log_with_a_damaged_head_is_not_written_to(
    open_writer: OpenWriter, place: LogPlace, tamper: str, index: int | None
) -> None:
    """Recovery names the place and repairs nothing."""
    writer = open_writer()
    for number in range(5):
        writer.submit(event_now(number)).result()
    writer.close()
    with place.attacker() as raw:
        raw.execute(tamper.format(zeros=raw.zeros(32)))
    with pytest.raises(AuditCorrupt) as caught:
        open_writer()
    assert caught.value.index == index
    with pytest.raises(AuditCorrupt):  # and the lock was let go
        open_writer()


def test_a_log_open_to_others_is_not_written_to(open_writer: OpenWriter, log_path: Path) -> None:
    """The writer refuses what the store refuses, and lets the lock go."""
    log_path.chmod(0o644)
    with pytest.raises(SettingRefused):
        open_writer()
    log_path.chmod(0o600)
    open_writer()


class SteppedClocks:
    """Real clocks whose wall part can be set."""

    def __init__(self) -> None:
        self.step_us = 0

    def clocks(self) -> Clocks:
        """Return the two clocks."""
        return Clocks(wall_us=lambda: time.time_ns() // 1_000 + self.step_us, monotonic_ns=time.monotonic_ns)


@pytest.mark.parametrize("step_us", [3_600_000_000, -3_600_000_000, 6_000_000])
def test_a_clock_that_was_set_stops_the_log(open_writer: OpenWriter, place: LogPlace, step_us: int) -> None:
    """Forwards, backwards or by seconds: admission ends with the reason, and the log before it stands."""
    clocks, reasons = SteppedClocks(), []
    writer = open_writer(clocks=clocks.clocks(), on_halt=reasons.append)
    writer.submit(event_now(0)).result()
    clocks.step_us = step_us
    with pytest.raises(AuditHalted, match="the clock was set"):
        writer.submit(event_now(1)).result()
    writer.close()
    assert writer.state is WriterState.HALTED
    assert reasons == [writer.halt_reason]
    assert_verifies(place, 1)


@pytest.mark.usefixtures("place")
def test_a_clock_step_within_the_limit_is_no_reason_to_stop(open_writer: OpenWriter) -> None:
    """A time daemon may correct what it corrects every day."""
    clocks = SteppedClocks()
    writer = open_writer(clocks=clocks.clocks())
    writer.submit(event_now(0)).result()
    clocks.step_us = 1_000_000
    assert writer.submit(event_now(1)).result().index == 1


@pytest.mark.parametrize(
    "edit",
    [
        "DROP TRIGGER leaf_no_update",
        "CREATE TRIGGER mine BEFORE INSERT ON leaf BEGIN SELECT raise(IGNORE); END",
        "CREATE TABLE mine (x)",
    ],
)
def test_a_log_whose_fences_were_changed_is_not_written_to(open_writer: OpenWriter, log_path: Path, edit: str) -> None:
    """A missing trigger, a foreign one or a foreign table: the next start refuses and names it."""
    open_writer().close()
    with closing(sqlite3.connect(log_path, isolation_level=None)) as connection:
        connection.execute(edit)
    with pytest.raises(AuditCorrupt, match=r"leaf_no_update|mine"):
        open_writer()
