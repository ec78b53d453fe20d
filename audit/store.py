"""Open a log's SQLite file so that durability is a fact: every setting is written, read back, and compared.

Never: create a database that is missing, open one that others may read, or run on a setting that did not take.
Durable means: in the write-ahead log and flushed (`synchronous=FULL`).  Copying the write-ahead log into the main file
is done by the writer itself (`wal_autocheckpoint=0`), because SQLite hides the errors of its automatic copy, and a
hidden fsync error is a lost log.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from sqlalchemy import BindParameter, Connection, Engine, Table, bindparam, create_engine, event, insert, select, text
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.pool import QueuePool, StaticPool

from audit.checkpoint import Checkpoint, LogSigner, sign_checkpoint
from audit.errors import AuditCorrupt, LogExists, LogMissing, LogUnusable, SettingRefused
from audit.faults import naming_file, require_content
from audit.merkle import EMPTY_ROOT
from audit.schema import SCHEMA_REVISION, checkpoint_table, leaf_table, node_table

_FILE_MODE = 0o600
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
    ("wal_autocheckpoint", "0", 0),
)
_HEAD_QUERY = (
    "SELECT size, root, (SELECT coalesce(max(idx) + 1, 0) FROM leaf) FROM checkpoint ORDER BY size DESC LIMIT 1"
)


def create_log(path: Path, signers: Sequence[LogSigner]) -> Checkpoint:
    """Create an empty log whose first checkpoint, of size 0, is signed; the file appears whole or not at all."""
    if path.exists():
        raise LogExists(path)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)  # a creation that was cut short: nothing was ever acknowledged from it
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, _FILE_MODE))
    engine = _engine(draft, read_only=False)
    checkpoint = Checkpoint(signers[0].name, 0, EMPTY_ROOT)
    with engine.begin() as connection:
        apply_migrations(connection)
        row = {"size": 0, "root": EMPTY_ROOT, "note": sign_checkpoint(checkpoint, signers)}
        connection.execute(insert(checkpoint_table).values(row))
    move_wal_into_database(engine, truncate=True)
    engine.dispose()
    try:
        os.link(draft, path)  # unlike rename, link never replaces
    except FileExistsError as error:
        raise LogExists(path) from error
    draft.unlink()
    _flush_folder(path.parent)
    return checkpoint


def open_engine(path: Path, *, read_only: bool, owner_only: bool = True) -> Engine:
    """Return an engine whose every connection has proven its settings; one connection only for a writer.

    `owner_only=False` is for verifying a copy, whose file mode proves nothing.
    """
    if not path.is_file():
        raise LogMissing(path)
    require_content(path)
    mode = path.stat().st_mode & 0o777
    if owner_only and mode & 0o077:
        raise SettingRefused("the log's file mode", oct(_FILE_MODE), oct(mode))
    return _engine(path, read_only=read_only)


def _engine(path: Path, *, read_only: bool) -> Engine:
    def connect() -> sqlite3.Connection:
        uri = f"file:{quote(str(path.absolute()))}?mode={'ro' if read_only else 'rw'}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            _prove_settings(connection, path, read_only=read_only)
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


def require_revision(connection: Connection) -> None:
    """Refuse tables that another version of this package made."""
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    if found != SCHEMA_REVISION:
        raise SettingRefused("the log's schema revision", SCHEMA_REVISION, found)


def require_own_schema(connection: Connection, path: Path) -> None:
    """Refuse tables, indexes or triggers that are not exactly ours: without its triggers a log can be edited."""
    expected, stored = expected_schema(), stored_schema(connection)
    for kind, name in sorted(expected.keys() | stored.keys()):
        if stored.get((kind, name)) != expected.get((kind, name)):
            raise AuditCorrupt(None, f"the {kind} {name} is missing, changed or not ours", path=path)


def apply_migrations(connection: Connection) -> None:
    """Bring the tables to `SCHEMA_REVISION`, inside the caller's transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, SCHEMA_REVISION)


@lru_cache(maxsize=1)
def expected_schema() -> Mapping[tuple[str, str], str | None]:
    """Return `(type, name) -> SQL` of everything that the migrations make."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        apply_migrations(connection)
        expected = stored_schema(connection)
    engine.dispose()
    return MappingProxyType(expected)


def stored_schema(connection: Connection) -> dict[tuple[str, str], str | None]:
    """Return `(type, name) -> SQL` of everything that this database has."""
    rows = connection.exec_driver_sql("SELECT type, name, sql FROM sqlite_master").all()
    return {(row[0], row[1]): row[2] for row in rows}


def bulk_insert(connection: Connection, table: Table, rows: Sequence[Sequence[object]]) -> None:
    """Insert rows in table order with few statements.

    Each statement that runs gives up the interpreter lock and must win it back; row by row, a busy event loop would
    stretch one commit by as many waits as it has rows.  Sizes are powers of two, so that few texts are compiled.
    """
    start = 0
    while start < len(rows):
        num_rows = 1 << ((len(rows) - start).bit_length() - 1)
        flat = tuple(value for row in rows[start : start + num_rows] for value in row)
        connection.exec_driver_sql(_insert_text(table, num_rows), flat)
        start += num_rows


@lru_cache(maxsize=64)
def _insert_text(table: Table, num_rows: int) -> str:
    rows: list[dict[str, BindParameter[Any]]] = [
        {c.name: bindparam(f"{c.name}_{row}") for c in table.columns} for row in range(num_rows)
    ]
    return str(insert(table).values(rows).compile(dialect=sqlite_dialect.dialect()))


def newest_checkpoint(connection: Connection) -> tuple[int, bytes, str]:
    """Return size, root column and note of the newest stored checkpoint."""
    columns = (checkpoint_table.c.size, checkpoint_table.c.root, checkpoint_table.c.note)
    size, root, note = connection.execute(select(*columns).order_by(checkpoint_table.c.size.desc()).limit(1)).one()
    require_kinds(None, (root, bytes), (note, str))
    return size, root, note


def stored_head(connection: Connection) -> tuple[int, bytes, int]:
    """Return size and root of the newest checkpoint, and the number of leaves; plain SQL, as it runs every commit."""
    size, root, num_leaves = connection.exec_driver_sql(_HEAD_QUERY).one()
    return size, root, num_leaves


class NodeLookup:
    """A `merkle.NodeReader` over the stored tree; level 0 is the leaves' own hash."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __call__(self, level: int, index: int) -> bytes:
        """Return one complete node's hash."""
        if level == 0:
            query = select(leaf_table.c.leaf_hash).where(leaf_table.c.idx == index)
        else:
            query = select(node_table.c.hash).where(node_table.c.level == level, node_table.c.idx == index)
        digest: bytes = self._connection.execute(query).scalar_one()
        require_kinds(None, (digest, bytes))
        return digest


def require_kinds(index: int | None, *values: tuple[object, type]) -> None:
    """Refuse values of another kind than their column's: in a damaged row even NOT NULL is no promise."""
    for value, kind in values:
        if not isinstance(value, kind):
            raise AuditCorrupt(index, f"{type(value).__name__} is stored where {kind.__name__} must be")


def move_wal_into_database(engine: Engine, *, truncate: bool = False) -> None:
    """Copy what is durable in the write-ahead log into the main file; an error here is an I/O error and is raised."""
    raw = engine.raw_connection()  # outside any transaction, which this statement must not have
    try:
        raw.cursor().execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if truncate else 'PASSIVE'})").fetchall()
    finally:
        raw.close()


@contextmanager
def snapshot(engine: Engine, path: Path) -> Iterator[Connection]:
    """Read one consistent state of the log at `path`; what is damaged is said in our errors, with the path."""
    with naming_file(path, LogUnusable), engine.begin() as connection:
        yield connection


def _prove_settings(connection: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
    for name, value, expected in (*_SETTINGS, ("query_only", "ON" if read_only else "OFF", int(read_only))):
        if not (read_only and name == "journal_mode"):  # a reader takes the journal as it is, and must find it right
            connection.execute(f"PRAGMA {name}={value}").fetchall()
        found: Any = connection.execute(f"PRAGMA {name}").fetchone()[0]
        if found != expected:
            raise SettingRefused(f"{path}: SQLite's {name}", expected, found)


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
