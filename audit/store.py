"""One way to make, open and read a log, in SQLite or in PostgreSQL.

What differs between the two stands in `sqlite` and `postgres`; what is said here holds for both, on SQLAlchemy Core.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sqlalchemy import BindParameter, Connection, Dialect, Engine, Table, bindparam, func, insert, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import psycopg

import audit.postgres.engine
import audit.postgres.schema_check
import audit.sqlite.engine
import audit.sqlite.schema_check
from audit.checkpoint import Checkpoint, LogSigner, sign_checkpoint
from audit.errors import AuditCorrupt, AuditHalted, LogUnusable
from audit.event import Pruned
from audit.faults import naming_file
from audit.location import LogLocation
from audit.merkle import EMPTY_ROOT
from audit.migrating import apply_migrations
from audit.new_file import appearing_whole
from audit.postgres.engine import Part
from audit.schema import checkpoint_table, content_table, leaf_table, node_table, pruning_table

_POSITIONAL: Mapping[str, Dialect] = MappingProxyType(
    {"sqlite": sqlite.dialect(paramstyle="qmark"), "postgresql": psycopg.dialect(paramstyle="format")}  # type: ignore[no-untyped-call]
)
_HEAD_COLUMNS = "size, root, (SELECT coalesce(max(idx) + 1, 0) FROM leaf)"
_ROWS_PER_STATEMENT = 1_024
_CONTENTS_PER_STATEMENT = 4
"""Each has up to `beside.MAX_CONTENT_BYTES`."""


@dataclass(frozen=True, slots=True)
class StoredHead:
    """The newest checkpoint's columns, and how many leaves there are."""

    size: int
    root: bytes
    num_leaves: int


@dataclass(frozen=True, slots=True)
class Floors:
    """Below these indices contents, or whole entries, are gone by a recorded act; 0 where nothing is."""

    content: int
    leaf: int


def create_log(path: Path, signers: Sequence[LogSigner]) -> Checkpoint:
    """Create an empty log in a file, whose first checkpoint, of size 0, is signed; it appears whole or not at all.

    In PostgreSQL the owner makes the log: `provision.create_log`.
    """
    with naming_file(path, LogUnusable), appearing_whole(path) as draft:
        engine = audit.sqlite.engine.unproven_file_engine(draft, read_only=False)
        try:
            with engine.begin() as connection:
                apply_migrations(connection)
                checkpoint = insert_first_checkpoint(connection, signers)
            audit.sqlite.engine.move_wal_into_database(engine, truncate=True)
        finally:
            engine.dispose()
    return checkpoint


def insert_first_checkpoint(connection: Connection, signers: Sequence[LogSigner]) -> Checkpoint:
    """Sign that the log is empty."""
    checkpoint = Checkpoint(signers[0].name, 0, EMPTY_ROOT)
    row = {"size": 0, "root": EMPTY_ROOT, "note": sign_checkpoint(checkpoint, signers)}
    connection.execute(insert(checkpoint_table).values(row))
    return checkpoint


def open_engine(location: LogLocation, *, read_only: bool) -> Engine:
    """Return an engine whose every connection has proven its settings; one connection only for a writer."""
    if isinstance(location, Path):
        return audit.sqlite.engine.open_engine(location, read_only=read_only)
    return audit.postgres.engine.open_engine(location, Part.READER if read_only else Part.WRITER)


def open_copy(location: LogLocation) -> Engine:
    """Return an engine that reads a log wherever it lies; see `sqlite.engine.open_copy`."""
    if isinstance(location, Path):
        return audit.sqlite.engine.open_copy(location)
    return audit.postgres.engine.open_engine(location, Part.READER)


@contextmanager
def snapshot(engine: Engine, location: LogLocation) -> Iterator[Connection]:
    """Read one consistent state of the log there; what is damaged is said in our errors, with the place."""
    with naming_file(location, LogUnusable), engine.begin() as connection:
        yield connection


def schema_faults(connection: Connection) -> list[tuple[str, str, str]]:
    """Return kind, name and fault of whatever in the schema is not exactly as the migrations made it."""
    if connection.dialect.name == "sqlite":
        return audit.sqlite.schema_check.schema_faults(connection)
    return audit.postgres.schema_check.schema_faults(connection)


def require_own_schema(connection: Connection, location: LogLocation) -> None:
    """Refuse tables, indexes or triggers that are not exactly ours: without its triggers a log can be edited."""
    for kind, name, fault in schema_faults(connection):
        raise AuditCorrupt(None, f"the {kind} {name} {fault}", path=location)


def bulk_insert(connection: Connection, table: Table, rows: Sequence[Sequence[object]]) -> None:
    """Insert rows in table order with few statements.

    Each statement that runs gives up the interpreter lock and must win it back; row by row, a busy event loop would
    stretch one commit by as many waits as it has rows.  Sizes are powers of two, so that few texts are compiled, and
    bounded: a statement has at most 32,766 parameters in SQLite, and one gibibyte in PostgreSQL.

    Raises:
        AuditHalted: a trigger or a rule that is not ours let rows vanish; the caller's transaction must not commit.
    """
    most = _CONTENTS_PER_STATEMENT if table is content_table else _ROWS_PER_STATEMENT
    start = 0
    while start < len(rows):
        num_rows = min(most, 1 << ((len(rows) - start).bit_length() - 1))
        flat = tuple(value for row in rows[start : start + num_rows] for value in row)
        inserted = connection.exec_driver_sql(_insert_text(table, num_rows, connection.dialect.name), flat).rowcount
        if inserted != num_rows:
            raise AuditHalted(f"the database took {inserted} of {num_rows} rows of {table.name} and reported no error")
        start += num_rows


@lru_cache(maxsize=256)
def _insert_text(table: Table, num_rows: int, dialect_name: str) -> str:
    rows: list[dict[str, BindParameter[Any]]] = [
        {c.name: bindparam(f"{c.name}_{row}") for c in table.columns} for row in range(num_rows)
    ]
    return str(insert(table).values(rows).compile(dialect=_POSITIONAL[dialect_name]))


def newest_checkpoint(connection: Connection) -> tuple[int, bytes, str]:
    """Return size, root column and note of the newest stored checkpoint."""
    columns = (checkpoint_table.c.size, checkpoint_table.c.root, checkpoint_table.c.note)
    size, root, note = connection.execute(select(*columns).order_by(checkpoint_table.c.size.desc()).limit(1)).one()
    require_kinds(None, (root, bytes), (note, str))
    return size, root, note


def stored_head(connection: Connection) -> StoredHead:
    """Return the newest checkpoint's columns and the number of leaves; plain SQL, as it runs every commit."""
    return stored_head_and(connection)[0]


def stored_head_and(connection: Connection, *expressions: str) -> tuple[StoredHead, Sequence[object]]:
    """Return the head, and what else a store wants to know at every commit, in one question."""
    columns = ", ".join((_HEAD_COLUMNS, *expressions))
    query = f"SELECT {columns} FROM checkpoint ORDER BY size DESC LIMIT 1"  # noqa: S608 - our own constants
    size, root, num_leaves, *more = connection.exec_driver_sql(query).one()
    return StoredHead(size, root, num_leaves), more


def stored_floors(connection: Connection) -> Floors:
    """Return the floors that are recorded; where all of an entry is gone, so is its content."""
    content, leaf = (_highest_floor(connection, what) for what in (Pruned.CONTENT, Pruned.LEAF))
    return Floors(max(content, leaf), leaf)


def _highest_floor(connection: Connection, what: Pruned) -> int:
    query = select(func.max(pruning_table.c.minimum_index)).where(pruning_table.c.what == what.value)
    minimum_index = connection.execute(query).scalar_one() or 0
    require_kinds(None, (minimum_index, int))
    return int(minimum_index)


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
