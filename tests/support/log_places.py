"""A log in either store, its roles, and the attacker who owns the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from audit_log_builder import SIGNER, append_batches, attacker
from real_postgres import PostgresServer

from audit.checkpoint import LogSigner
from audit.event import Event
from audit.location import LogLocation
from audit.migrations.versions.r0002_beside_the_leaves import POSTGRES_TRIGGERS
from audit.schema import metadata
from audit.store import create_log

STORES = ("sqlite", "postgres")


class Attack:
    """A connection of the database's own master, with the fence down."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement, written without parameters; return its rows."""
        cursor = self._connection.execute(statement)
        return cursor.fetchall() if cursor.description else []

    def executescript(self, statements: str) -> None:
        """Run several."""
        for statement in statements.split(";"):
            self.execute(statement)

    def column(self, query: str) -> list[Any]:
        """One column."""
        return [row[0] for row in self.execute(query)]

    def zeros(self, count: int) -> str:
        """So many zero bytes, as this database writes them."""
        is_sqlite = isinstance(self._connection, sqlite3.Connection)
        return f"zeroblob({count})" if is_sqlite else f"'\\x{'00' * count}'::bytea"


@dataclass(frozen=True)
class LogPlace:
    """An empty log, or one that the test has filled."""

    store: str
    writer: LogLocation
    reader: LogLocation
    superuser: str = ""

    @contextmanager
    def attacker(self) -> Iterator[Attack]:
        """Lower the fence, let edit, and put it up again as it was."""
        if isinstance(self.writer, Path):
            with attacker(self.writer) as connection:
                yield Attack(connection)
            return
        with psycopg.connect(self.superuser, autocommit=True, options="-c search_path=cloister") as connection:
            for table in metadata.tables:
                connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
            try:
                yield Attack(connection)
            finally:
                for table, trigger in POSTGRES_TRIGGERS:
                    connection.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}")

    @contextmanager
    def master(self) -> Iterator[Attack]:
        """The same connection with the fence standing."""
        if isinstance(self.writer, Path):
            connection = sqlite3.connect(self.writer, isolation_level=None)
            yield Attack(connection)
            connection.close()
            return
        with psycopg.connect(self.superuser, autocommit=True, options="-c search_path=cloister") as connection:
            yield Attack(connection)

    def fill(self, events: Sequence[Event], batch_lens: Sequence[int], signer: LogSigner = SIGNER) -> None:
        """Write an empty log whose commits have exactly these lengths."""
        assert sum(batch_lens) == len(events)
        append_batches(self.writer, events, batch_lens, signer)


def new_place(store: str, folder: Path, server: PostgresServer | None, signer: LogSigner = SIGNER) -> LogPlace:
    """Make an empty log."""
    if store == "sqlite":
        path = folder / "audit.db"
        create_log(path, [signer])
        return LogPlace(store, path, path)
    assert server is not None
    database = server.log_database(signer)
    return LogPlace(store, database.writer, database.reader, database.superuser)
