"""Faults at every durable step, in pairs where there are two: failed and not persisted, failed but persisted."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_log_builder import PAIRING, PLACE, SIGNER, event_now
from sqlalchemy import event

import audit.holding.sqlite_hold
from audit.batch import plan_batch
from audit.errors import AuditHalted, AuditRefused
from audit.leaf import draft_leaf
from audit.schema import checkpoint_table, leaf_table, node_table
from audit.store import bulk_insert, open_engine
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterState

OpenWriter = Callable[..., AuditWriter]


class DiskError(Exception):
    """What an fsync might say."""


def fail_before_commit(writer: AuditWriter) -> None:
    """The commit fails and nothing of it is on disk."""

    def before(_: Any) -> None:
        raise DiskError("before")

    event.listen(writer._log._hold.engine, "commit", before)


def fail_after_commit(writer: AuditWriter) -> None:
    """The commit fails, and yet all of it is on disk."""

    def after(connection: Any) -> None:
        connection.connection.dbapi_connection.commit()
        raise DiskError("after")

    event.listen(writer._log._hold.engine, "commit", after)


def fail_statement(nth: int, *, executed: bool) -> Callable[[AuditWriter], None]:
    """The nth statement of the next commit fails, before or after it ran inside the transaction."""

    def arm(writer: AuditWriter) -> None:
        seen = 0

        def count(*_: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == nth:
                raise DiskError(f"statement {nth}")

        event.listen(writer._log._hold.engine, "after_cursor_execute" if executed else "before_cursor_execute", count)

    return arm


STATEMENTS = range(1, 6)  # begin, head, leaves, nodes, checkpoint
FAULTS = {
    "commit failed, not persisted": (fail_before_commit, 0),
    "commit failed, persisted": (fail_after_commit, 2),
    **{f"statement {n} failed": (fail_statement(n, executed=False), 0) for n in STATEMENTS},
    **{f"statement {n} failed after it ran": (fail_statement(n, executed=True), 0) for n in STATEMENTS},
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_in_a_commit_gives_no_receipt_and_ends_the_writer(
    open_writer: OpenWriter, log_path: Path, fault: str
) -> None:
    """Everyone waiting is told, nobody is admitted, and reopening finds a whole log: with the batch or without."""
    arm, num_persisted = FAULTS[fault]
    reasons: list[str] = []
    writer = open_writer(on_halt=reasons.append)
    await writer.append(event_now(0))
    arm(writer)
    with (
        writer._line._condition
    ):  # both get into one batch: the writer cannot take the first before the second is there
        thread_waits = writer.submit(event_now(1))
        loop_waits = asyncio.ensure_future(writer.append(event_now(2)))
        await asyncio.sleep(0)
    for waiting in (asyncio.wrap_future(thread_waits), loop_waits):
        with pytest.raises(AuditHalted, match="DiskError"):
            await waiting
    writer.close()
    assert writer.state is WriterState.HALTED
    assert reasons == [writer.halt_reason]
    with pytest.raises(AuditHalted, match="DiskError"):
        writer.submit(event_now(3))
    assert writer.head.size == 1
    report = verify_log(log_path, [SIGNER.verifier], PAIRING)
    assert report.findings == ()
    assert report.num_leaves == 1 + num_persisted
    reopened = open_writer()
    assert reopened.submit(event_now(4)).result().index == 1 + num_persisted
    reopened.close()
    assert verify_log(log_path, [SIGNER.verifier], PAIRING).ok


def test_an_error_is_never_retried(open_writer: OpenWriter, log_path: Path) -> None:
    """A second commit might falsely succeed, so there is none, even when the disk would now take it."""
    writer = open_writer()
    attempts: list[int] = []

    def once(_: Any) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise DiskError("once")

    event.listen(writer._log._hold.engine, "commit", once)
    with pytest.raises(AuditHalted):
        writer.submit(event_now(0)).result()
    with pytest.raises(AuditHalted):
        writer.submit(event_now(1))
    writer.close()
    assert attempts == [1]
    assert verify_log(log_path, [SIGNER.verifier], PAIRING).num_leaves == 0


def test_an_error_while_the_journal_is_moved_ends_the_writer_but_no_receipt(
    open_writer: OpenWriter, log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error that SQLite would hide is fatal here; what was acknowledged before it stays."""

    def broken(*_: object, **__: object) -> None:
        raise DiskError("fsync of the main file")

    monkeypatch.setattr(audit.holding.sqlite_hold, "move_wal_into_database", broken)
    writer = open_writer(config={"wal_move_after_commits": 2})
    receipts = [writer.submit(event_now(number)).result() for number in range(2)]
    writer.close()
    assert writer.state is WriterState.HALTED
    assert [receipt.index for receipt in receipts] == [0, 1]
    assert verify_log(log_path, [SIGNER.verifier], PAIRING).num_leaves == 2


def test_a_full_database_halts_cleanly(open_writer: OpenWriter, log_path: Path) -> None:
    """SQLite's own 'disk is full' ends the writer; the log before it verifies."""
    writer = open_writer()
    writer.submit(event_now(0)).result()
    raw = writer._log._hold.engine.raw_connection()
    pages = raw.cursor().execute("PRAGMA page_count").fetchone()[0]
    raw.cursor().execute(f"PRAGMA max_page_count={pages + 2}")

    def fill() -> None:
        for number in range(1, 1_000):
            writer.submit(event_now(number)).result()

    with pytest.raises(AuditHalted, match="full"):
        fill()
    writer.close()
    report = verify_log(log_path, [SIGNER.verifier], PAIRING)
    assert report.findings == ()
    assert report.num_leaves == writer.head.size


def test_too_little_disk_stops_before_the_commit(open_writer: OpenWriter, log_path: Path) -> None:
    """Below the floor nothing more is admitted."""
    writer = open_writer(config={"min_free_bytes": 2**62})
    with pytest.raises(AuditHalted, match="the floor is"):
        writer.submit(event_now(0)).result()
    writer.close()
    assert verify_log(log_path, [SIGNER.verifier], PAIRING).num_leaves == 0


@pytest.mark.parametrize("name", ["audit.db", "audit.db-wal", "audit.db.writer"])
@pytest.mark.parametrize("replace", [False, True])
def test_a_file_taken_away_under_the_writer_stops_it(
    open_writer: OpenWriter, log_path: Path, name: str, replace: bool
) -> None:
    """An open handle would go on writing into nothing."""
    writer = open_writer()
    writer.submit(event_now(0)).result()
    victim = log_path.with_name(name)
    content = victim.read_bytes()
    victim.rename(victim.with_name("taken"))
    if replace:
        victim.write_bytes(content)
    with pytest.raises(AuditHalted, match="replaced" if replace else "removed"):
        writer.submit(event_now(1)).result()
    writer.close()


@pytest.mark.parametrize("leave", [0, 100])
def test_a_journal_cut_in_place_stops_the_writer_before_it_answers_again(
    open_writer: OpenWriter, log_path: Path, leave: int
) -> None:
    """What was acknowledged since the journal was last moved is gone: that is said at once, before another answer."""
    writer = open_writer()
    writer.submit(event_now(0)).result()
    os.truncate(log_path.with_name("audit.db-wal"), leave)
    with pytest.raises(AuditHalted, match=r"audit\.db-wal shrank"):
        writer.submit(event_now(1)).result()
    writer.close()


def test_a_file_taken_away_during_the_commit_gives_no_receipt(open_writer: OpenWriter, log_path: Path) -> None:
    """The check after the commit comes before the answer."""
    writer = open_writer()
    writer.submit(event_now(0)).result()
    wal = log_path.with_name("audit.db-wal")
    event.listen(writer._log._hold.engine, "commit", lambda _: wal.rename(wal.with_name("taken")))
    with pytest.raises(AuditHalted, match="removed"):
        writer.submit(event_now(1)).result()
    writer.close()


def test_someone_elses_leaf_stops_the_writer_before_it_forks_the_log(open_writer: OpenWriter, log_path: Path) -> None:
    """A second writer that got past the lock is noticed inside the transaction."""
    writer = open_writer()
    writer.submit(event_now(0)).result()
    intruder = open_engine(log_path, read_only=False)
    plan = plan_batch(writer._log.edge, [draft_leaf(event_now(1), PLACE)], [SIGNER])
    with intruder.begin() as connection:
        bulk_insert(connection, leaf_table, plan.leaf_rows)
        bulk_insert(connection, node_table, plan.node_rows)
        bulk_insert(connection, checkpoint_table, (plan.checkpoint_row,))
    with pytest.raises(AuditHalted, match="the head in the store is 2"):
        writer.submit(event_now(2)).result()
    writer.close()
    intruder.dispose()
    assert verify_log(log_path, [SIGNER.verifier], None).num_leaves == 2


async def test_events_refused_together_have_an_error_each(open_writer: OpenWriter) -> None:
    """An exception is one waiter's: it collects that one's traceback, and is closed over by that one's context."""
    writer = open_writer()
    skewed = [dataclasses.replace(event_now(number), monotonic_ns=1) for number in range(2)]
    with writer._line._condition:  # one batch, as above
        waiting = [asyncio.ensure_future(writer.append(one)) for one in skewed]
        await asyncio.sleep(0)
    one, other = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(one, AuditRefused)
    assert isinstance(other, AuditRefused)
    assert one is not other


def test_a_bug_in_an_observer_is_not_swallowed(open_writer: OpenWriter) -> None:
    """A writer that cannot be watched does not go on."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("observer")

    writer = open_writer(observe_commit=broken)
    assert writer.submit(event_now(0)).result().index == 0
    writer.close()
    assert writer.halt_reason == "ZeroDivisionError: observer"
