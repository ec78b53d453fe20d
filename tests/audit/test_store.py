from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from audit_log_builder import SIGNER
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import IntegrityError

import audit.new_file
from audit.errors import LogExists, LogMissing, LogUnusable, SettingRefused
from audit.migrating import apply_migrations, require_revision
from audit.schema import metadata
from audit.store import create_log, open_engine


def test_the_migrations_make_exactly_the_tables_that_the_code_uses() -> None:
    """No column, index or type differs between the two descriptions."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        apply_migrations(connection)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_a_new_log_is_private_whole_and_signed(tmp_path: Path) -> None:
    """One file, mode 0600, with a signed checkpoint of size 0."""
    path = tmp_path / "audit.db"
    before = os.umask(0)
    try:
        create_log(path, [SIGNER])
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["audit.db"]
    [(size, note)] = sqlite3.connect(path).execute("SELECT size, note FROM checkpoint").fetchall()
    assert size == SIGNER.verifier.open(note).size == 0


def test_creating_never_replaces_a_log(log_path: Path) -> None:
    """A second creation is refused and leaves the first as it was."""
    before = log_path.read_bytes()
    with pytest.raises(LogExists):
        create_log(log_path, [SIGNER])
    assert log_path.read_bytes() == before


def test_a_creation_that_was_cut_short_leaves_no_log_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log appears by one link, or not at all."""
    path = tmp_path / "audit.db"

    def cut_short(*_: object) -> None:
        raise OSError("cut short")

    with monkeypatch.context() as patch:
        patch.setattr(audit.new_file.os, "link", cut_short)
        with pytest.raises(LogUnusable, match="cut short"):
            create_log(path, [SIGNER])
    assert not path.exists()
    create_log(path, [SIGNER])
    assert path.exists()


def test_a_missing_log_is_never_made(tmp_path: Path) -> None:
    """Opening is not creating."""
    with pytest.raises(LogMissing):
        open_engine(tmp_path / "audit.db", read_only=False)
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_others_may_read_stays_shut(log_path: Path) -> None:
    """The file mode is checked before the database is touched."""
    log_path.chmod(0o640)
    with pytest.raises(SettingRefused, match="file mode"):
        open_engine(log_path, read_only=False)


@pytest.mark.parametrize("read_only", [False, True])
def test_every_setting_is_what_durability_needs(log_path: Path, read_only: bool) -> None:
    """Asked of the open connection itself, not of our code."""
    engine = open_engine(log_path, read_only=read_only)
    with engine.begin() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in (
                "journal_mode",
                "synchronous",
                "foreign_keys",
                "trusted_schema",
                "recursive_triggers",
                "fullfsync",
                "wal_autocheckpoint",
                "query_only",
            )
        }
    engine.dispose()
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "trusted_schema": 0,
        "recursive_triggers": 1,
        "fullfsync": 1,
        "wal_autocheckpoint": 0,
        "query_only": int(read_only),
    }


def test_a_setting_that_does_not_take_keeps_the_log_shut(log_path: Path) -> None:
    """A journal in another mode, held by someone else, cannot be switched back: refused by name."""
    holder = sqlite3.connect(log_path, isolation_level=None)
    holder.execute("PRAGMA journal_mode=DELETE")
    with pytest.raises(SettingRefused, match="journal_mode"):
        open_engine(log_path, read_only=True).connect()
    holder.close()


def test_tables_of_another_revision_are_refused(log_path: Path) -> None:
    """A log from a newer version is not written with older eyes."""
    raw = sqlite3.connect(log_path)
    raw.execute("UPDATE alembic_version SET version_num = 'r9999'")
    raw.commit()
    raw.close()
    engine = open_engine(log_path, read_only=True)
    with engine.begin() as connection, pytest.raises(SettingRefused, match="revision"):
        require_revision(connection)
    engine.dispose()


LEAF_ROW = "0, 0, x'00', x'00', 'k', 0, 1, 'a', 'r', 't', 's', NULL, NULL, NULL, NULL, NULL"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE leaf SET kind = 'x'",
        "DELETE FROM leaf",
        f"INSERT OR REPLACE INTO leaf VALUES ({LEAF_ROW})",
        f"INSERT INTO leaf VALUES ({LEAF_ROW.replace('0', '2', 1)})",
        "UPDATE node SET hash = x'00'",
        "DELETE FROM node",
        "INSERT OR REPLACE INTO node VALUES (1, 0, x'00')",
        "UPDATE checkpoint SET note = ''",
        "DELETE FROM checkpoint",
        "INSERT OR REPLACE INTO checkpoint VALUES (0, x'00', '')",
        "INSERT INTO checkpoint VALUES (9, x'00', '')",
    ],
)
def test_the_database_itself_refuses_to_change_the_past(log_path: Path, statement: str) -> None:
    """UPDATE, DELETE, REPLACE and anything but the next row hit a trigger."""
    engine = open_engine(log_path, read_only=False)
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO leaf VALUES ({LEAF_ROW})"))
        connection.execute(text("INSERT INTO node VALUES (1, 0, x'01')"))
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_a_reader_cannot_write(log_path: Path) -> None:
    """Not even what a writer may."""
    engine = open_engine(log_path, read_only=True)
    with pytest.raises(Exception, match="readonly"), engine.begin() as connection:
        connection.execute(text(f"INSERT INTO leaf VALUES ({LEAF_ROW})"))
    engine.dispose()


def test_each_connection_proves_its_settings_anew(log_path: Path) -> None:
    """A pool hands out nothing that was not checked."""
    engine = open_engine(log_path, read_only=True)
    connected: list[object] = []
    event.listen(engine, "connect", lambda connection, _: connected.append(connection))
    with engine.connect(), engine.connect():
        pass
    assert [raw.execute("PRAGMA synchronous").fetchone()[0] for raw in connected] == [2, 2]
    engine.dispose()
