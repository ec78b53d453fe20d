"""A log on a medium that takes no write: what is sound verifies, and what the machine refuses is no word on the log."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from audit_log_builder import PAIRING, SIGNER, attacker, build_log, request_events

import audit.sqlite.engine
from audit.errors import LogUnusable
from audit.report import Place
from audit.verify import verify_log


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A closed log beside which SQLite can make no index of a journal, as on a read-only medium."""
    path = tmp_path / "audit.db"
    build_log(path, request_events(3), [5])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    return path


def forbid_journal_index(path: Path) -> None:
    """Take the place of the file that SQLite would make; it follows no link, and refuses as where it may not write."""
    path.with_name(path.name + "-shm").symlink_to("/nonexistent/folder/file")


def test_a_sound_log_on_a_read_only_medium_verifies(copy: Path) -> None:
    """Nobody can change it there, so it is read as it lies."""
    forbid_journal_index(copy)
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        sqlite3.connect(f"file:{copy}?mode=ro", uri=True).execute("SELECT * FROM leaf")
    report = verify_log(copy, [SIGNER.verifier], PAIRING)
    assert report.findings == ()
    assert report.num_leaves == 5


def test_an_altered_log_on_a_read_only_medium_is_found(copy: Path) -> None:
    """The same findings as elsewhere."""
    with attacker(copy) as raw:
        raw.execute("UPDATE leaf SET actor = 'nobody' WHERE idx = 2")
    forbid_journal_index(copy)
    [finding] = verify_log(copy, [SIGNER.verifier], PAIRING).findings
    assert (finding.place, finding.index, finding.where) == (Place.COLUMN, 2, "actor")


def test_a_journal_that_cannot_be_read_is_never_passed_over(copy: Path) -> None:
    """Its rows belong to the log: without them the answer would be about another one."""
    forbid_journal_index(copy)
    copy.with_name(copy.name + "-wal").write_bytes(b"\0" * 32)
    with pytest.raises(LogUnusable, match="unable to open"):
        verify_log(copy, [SIGNER.verifier], PAIRING)


def test_a_locked_log_is_unusable_and_not_unsound(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody holds the whole file: that says nothing about what is in it."""
    monkeypatch.setattr(
        audit.sqlite.engine, "_SETTINGS", (("busy_timeout", "0", 0), *audit.sqlite.engine._SETTINGS[1:])
    )
    holder = sqlite3.connect(copy, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogUnusable, match="locked"):
        verify_log(copy, [SIGNER.verifier], PAIRING)
    holder.close()
