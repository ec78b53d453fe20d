"""Open a log's SQLite file so that durability is a fact: every setting is written, read back, and compared.

Never: create a database that is missing, open one that others may read, or run on a setting that did not take.
Durable means: in the write-ahead log and flushed (`synchronous=FULL`).  Copying the write-ahead log into the main file
is done by the writer itself (`wal_autocheckpoint=0`), because SQLite hides the errors of its automatic copy, and a
hidden fsync error is a lost log.
"""

from __future__ import annotations

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
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool, StaticPool

from audit.checkpoint import Checkpoint, LogSigner, sign_checkpoint
from audit.errors import AuditCorrupt, LogMissing, LogUnusable, SettingRefused
from audit.faults import is_no_writing, naming_file, require_content
from audit.merkle import EMPTY_ROOT
from audit.new_file import FILE_MODE, appearing_whole
from audit.schema import SCHEMA_REVISION, checkpoint_table, leaf_table, node_table

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
    checkpoint = Checkpoint(signers[0].name, 0, EMPTY_ROOT)
    row = {"size": 0, "root": EMPTY_ROOT, "note": sign_checkpoint(checkpoint, signers)}
    with appearing_whole(path) as draft:
        engine = _engine(draft, read_only=False)
        try:
            with engine.begin() as connection:
                apply_migrations(connection)
                connection.execute(insert(checkpoint_table).values(row))
            move_wal_into_database(engine, truncate=True)
        finally:
            engine.dispose()
    return checkpoint


def open_engine(path: Path, *, read_only: bool) -> Engine:
    """Return an engine whose every connection has proven its settings; one connection only for a writer."""
    if not path.is_file():
        raise LogMissing(path)
    require_content(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise SettingRefused("the log's file mode", oct(FILE_MODE), oct(mode))
    return _engine(path, read_only=read_only)


def open_copy(path: Path) -> Engine:
    """Return an engine that reads a log wherever it lies: its file mode proves nothing, and it may lie read-only.

    SQLite keeps an index of the journal beside the file.  Where that cannot be made and there is nothing in a journal,
    the file is read as one that nobody changes; a writer, which always has a journal, cannot be at work there.
    """
    if not path.is_file():
        raise LogMissing(path)
    require_content(path)
    engine = _engine(path, read_only=True)
    try:
        with engine.connect():
            return engine
    except OperationalError as error:
        engine.dispose()
        journal = path.with_name(path.name + "-wal")
        if not is_no_writing(error.orig) or (journal.exists() and journal.stat().st_size):
            raise
    return _engine(path, read_only=True, immutable=True)


def _engine(path: Path, *, read_only: bool, immutable: bool = False) -> Engine:
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


def require_revision(connection: Connection) -> None:
    """Refuse tables that another version of this package made."""
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    if found != SCHEMA_REVISION:
        raise SettingRefused("the log's schema revision", SCHEMA_REVISION, found)


def require_own_schema(connection: Connection, path: Path) -> None:
    """Refuse tables, indexes or triggers that are not exactly ours: without its triggers a log can be edited."""
    for kind, name, fault in schema_faults(connection):
        raise AuditCorrupt(None, f"the {kind} {name} {fault}", path=path)


def apply_migrations(connection: Connection) -> None:
    """Bring the tables to `SCHEMA_REVISION`, inside the caller's transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, SCHEMA_REVISION)


def schema_faults(connection: Connection) -> list[tuple[str, str, str]]:
    """Return kind, name and fault of every table, index or trigger that is not exactly as the migrations made it.

    In an altered file kind and name may be no text either.
    """
    expected, stored = expected_schema(), stored_schema(connection)
    faults: list[tuple[str, str, str]] = []
    for kind, name in sorted(expected.keys() | stored.keys(), key=str):
        if (kind, name) not in stored:
            faults.append((str(kind), str(name), "is missing"))
        elif (kind, name) not in expected or expected[kind, name] != stored[kind, name]:
            faults.append((str(kind), str(name), "is not as the migrations made it"))
    return faults


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
