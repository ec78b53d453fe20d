"""A log of an older revision is brought up to date by its next writer, and by nobody else."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from audit_log_builder import PAIRING, PLACE, SIGNER, attacker, event_now, make_event
from sqlalchemy import Engine, event

from audit.batch import plan_batch
from audit.errors import AuditCorrupt, LogUnusable, SettingRefused
from audit.leaf import draft_leaf
from audit.merkle import EMPTY_EDGE
from audit.migrating import apply_migrations
from audit.reader import AuditReader
from audit.schema import checkpoint_table, leaf_table, node_table
from audit.sqlite.engine import unproven_file_engine
from audit.store import bulk_insert, insert_first_checkpoint
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig


@pytest.fixture
def old_log(tmp_path: Path) -> Path:
    """Three entries as the first revision stored them."""
    path = tmp_path / "audit.db"
    path.touch(0o600)
    engine = unproven_file_engine(path, read_only=False)
    events = [make_event(number) for number in range(3)]
    events[0] = dataclasses.replace(events[0], facts={**events[0].facts, "policy_ids": "no list"})
    events[1] = dataclasses.replace(events[1], facts={**events[1].facts, "policy_ids": ["p", "q", "p"]})
    events[2] = dataclasses.replace(events[2], facts={**events[2].facts, "policy_ids": {"p": "no list"}})
    plan = plan_batch(EMPTY_EDGE, [draft_leaf(one, PLACE) for one in events], [SIGNER])
    with engine.begin() as connection:
        apply_migrations(connection, "r0001")
        insert_first_checkpoint(connection, [SIGNER])
        bulk_insert(connection, leaf_table, plan.leaf_rows)
        bulk_insert(connection, node_table, plan.node_rows)
        bulk_insert(connection, checkpoint_table, (plan.checkpoint_row,))
    engine.dispose()
    return path


def open_writer(path: Path) -> AuditWriter:
    """As a start of the appliance does."""
    return AuditWriter.open(WriterConfig(path, PLACE.node_id, "boot-2", min_free_bytes=0), [SIGNER])


def test_the_next_writer_brings_it_up_to_date(old_log: Path):
    """Every entry stays as it was, is found by its policies, and the log verifies."""
    before = sqlite3.connect(old_log).execute("SELECT idx, leaf_bytes FROM leaf").fetchall()
    writer = open_writer(old_log)
    writer.submit(event_now(9, subject="new")).result()
    writer.close()
    after = sqlite3.connect(old_log)
    assert after.execute("SELECT idx, leaf_bytes FROM leaf WHERE idx < 3").fetchall() == before
    assert after.execute("SELECT idx, policy_id FROM leaf_policy").fetchall() == [(1, "p"), (1, "q")]
    assert verify_log(old_log, [SIGNER.verifier], PAIRING).findings == ()


def test_a_reader_does_not_touch_it(old_log: Path):
    """Who only reads has no right to change the tables, and says who does."""
    with pytest.raises(SettingRefused, match="start the appliance once"):
        AuditReader(old_log)


def test_a_log_whose_head_is_not_proven_is_not_migrated(old_log: Path):
    """What the auditor must see as it is, is left as it is."""
    with attacker(old_log) as raw:
        raw.execute("UPDATE checkpoint SET root = zeroblob(32) WHERE size = 3")
    with pytest.raises(AuditCorrupt):
        open_writer(old_log)
    assert sqlite3.connect(old_log).execute("SELECT version_num FROM alembic_version").fetchone() == ("r0001",)


def _fill_disk_at_the_last_statement(*arguments: Any) -> None:
    """A listener of the library: the file may not grow any more."""
    _, cursor, statement, *_ = arguments
    if "pruning_unsigned_only" in statement:
        cursor.execute("PRAGMA max_page_count = 1")
        cursor.execute("INSERT INTO content VALUES (9, 'p', 'k', x'00', zeroblob(10000000))")


def test_a_step_that_fails_on_the_way_leaves_the_old_log_as_it_was(old_log: Path):
    """All of it or nothing: the disk is full at the last statement, and once there is room the next start goes on."""
    before = sqlite3.connect(old_log).execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    event.listen(Engine, "before_cursor_execute", _fill_disk_at_the_last_statement)
    try:
        with pytest.raises(LogUnusable, match="full"):
            open_writer(old_log)
    finally:
        event.remove(Engine, "before_cursor_execute", _fill_disk_at_the_last_statement)
    assert sqlite3.connect(old_log).execute("SELECT type, name, sql FROM sqlite_master").fetchall() == before
    assert sqlite3.connect(old_log).execute("SELECT version_num FROM alembic_version").fetchone() == ("r0001",)
    open_writer(old_log).close()
    assert verify_log(old_log, [SIGNER.verifier], PAIRING).findings == ()
