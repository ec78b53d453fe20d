"""Open a log's SQLite file so that durability is a fact: every setting is written, read back, and compared.

Never: create a database that is missing, open one that others may read, or run on a setting that did not take.
Durable means: in the write-ahead log and flushed (`synchronous=FULL`).  Copying the write-ahead log into the main file
is done by the writer itself (`wal_autocheckpoint=0`), because SQLite hides the errors of its automatic copy, and a
hidden fsync error is a lost log.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool, StaticPool

from audit.errors import LogMissing, SettingRefused
from audit.faults import is_no_writing, require_content
from audit.new_file import FILE_MODE

_BUSY_TIMEOUT_MS = 5_000
_SETTINGS: tuple[tuple[str, str, object], ...] = (
    ("busy_timeout", str(_BUSY_TIMEOUT_MS), _BUSY_TIMEOUT_MS),
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("fullfsync", "ON", 1),
    ("checkpoint_fullfsync", "ON", 1),
    ("foreign_keys", "ON", 1),
    ("trusted_schema", "OFF", 0),
    ("recursive_triggers", "ON", 1),  # otherwise INSERT OR REPLACE deletes without asking the delete trigger
    ("cell_size_check", "ON", 1),
    ("secure_delete", "ON", 1),  # what was pruned is gone from the file
    ("wal_autocheckpoint", "0", 0),
)


def open_engine(path: Path, *, read_only: bool) -> Engine:
    """Return an engine whose every connection has proven its settings; one connection only for a writer."""
    if not path.is_file():
        raise LogMissing(path)
    require_content(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise SettingRefused("the log's file mode", oct(FILE_MODE), oct(mode))
    return unproven_file_engine(path, read_only=read_only)


def open_copy(path: Path) -> Engine:
    """Return an engine that reads a log wherever it lies: its file mode proves nothing, and it may lie read-only.

    SQLite keeps an index of the journal beside the file.  Where that cannot be made and there is nothing in a journal,
    the file is read as one that nobody changes; a writer, which always has a journal, cannot be at work there.
    """
    if not path.is_file():
        raise LogMissing(path)
    require_content(path)
    engine = unproven_file_engine(path, read_only=True)
    try:
        with engine.connect():
            return engine
    except OperationalError as error:
        engine.dispose()
        journal = path.with_name(path.name + "-wal")
        if not is_no_writing(error.orig) or (journal.exists() and journal.stat().st_size):
            raise
    return unproven_file_engine(path, read_only=True, immutable=True)


def unproven_file_engine(path: Path, *, read_only: bool, immutable: bool = False) -> Engine:
    """The same without asking for the file's mode or content: for a draft, which is neither yet."""

    def connect() -> sqlite3.Connection:
        access = "rw" if not read_only else "ro&immutable=1" if immutable else "ro"
        uri = f"file:{quote(str(path.absolute()))}?mode={access}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            _prove_settings(connection, path, read_only=read_only, immutable=immutable)
        except BaseException:
            connection.close()
            raise
        return connection

    if read_only:
        engine = create_engine("sqlite://", creator=connect, hide_parameters=True, poolclass=QueuePool, max_overflow=12)
    else:
        engine = create_engine("sqlite://", creator=connect, hide_parameters=True, poolclass=StaticPool)
    event.listen(engine, "begin", _begin_deferred if read_only else _begin_immediate)
    return engine


def move_wal_into_database(engine: Engine, *, truncate: bool = False) -> None:
    """Copy what is durable in the write-ahead log into the main file; an error here is an I/O error and is raised."""
    raw = engine.raw_connection()  # outside any transaction, which this statement must not have
    try:
        raw.cursor().execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if truncate else 'PASSIVE'})").fetchall()
    finally:
        raw.close()


def _prove_settings(connection: sqlite3.Connection, path: Path, *, read_only: bool, immutable: bool) -> None:
    for name, value, expected in (*_SETTINGS, ("query_only", "ON" if read_only else "OFF", int(read_only))):
        if immutable and name == "journal_mode":  # it has none, whatever the file says
            continue
        if not (read_only and name == "journal_mode"):  # a reader takes the journal as it is, and must find it right
            connection.execute(f"PRAGMA {name}={value}").fetchall()
        found: Any = connection.execute(f"PRAGMA {name}").fetchone()[0]
        if found != expected:
            raise SettingRefused(f"{path}: SQLite's {name}", expected, found)


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
