"""Make a log in an empty PostgreSQL database, as its owner: a new one, or one that lay in a file until now.

Promise: all of it in one transaction, or nothing - tables, fence, rights, and the signed beginning or every row that
the file has; afterwards the writer can insert and read, the reader can read, and neither can do more.  A moved log is
the same log: every leaf, node and checkpoint is copied as it is, its head is proven before and after.  The file is held
against writers meanwhile and is not touched.  The two roles exist before; who may log in as whom is the database's
administrator's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Table, select, text

from audit.checkpoint import Checkpoint, LogSigner, LogVerifier
from audit.errors import AuditCorrupt, AuditRefused, LogExists, LogUnusable, SettingRefused
from audit.faults import naming_file
from audit.holding.hold import take_hold
from audit.location import PostgresLog
from audit.migrating import apply_migrations, require_revision
from audit.migrations.versions.r0002_beside_the_leaves import POSTGRES_TRIGGERS
from audit.postgres.engine import Part, open_engine
from audit.recovery import recover_head
from audit.schema import metadata
from audit.store import bulk_insert, insert_first_checkpoint, require_own_schema, snapshot

_ROWS_PER_COPY = 256
_ROLE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def create_log(owner: PostgresLog, signers: Sequence[LogSigner], *, writer: str, reader: str) -> Checkpoint:
    """Make the log.

    Args:
        owner: the database, as the role that will own the tables; neither the writer nor the reader.
        signers: the log's keys.
        writer: name of the role that the appliance appends as.
        reader: name of the role that the appliance reads as.

    Raises:
        AuditRefused: the names are not those of three different ordinary roles.
        LogExists: the database has a log.
        LogUnusable: the server refuses.
    """
    with _new_log(owner, writer, reader) as connection:
        return insert_first_checkpoint(connection, signers)


def move_log(
    path: Path, owner: PostgresLog, verifiers: Sequence[LogVerifier], *, writer: str, reader: str
) -> Checkpoint:
    """Copy the log at `path` into an empty database; return its head, proven in the new place.

    Args:
        path: a log in a file that no writer holds.
        owner: the database, as `create_log` takes it.
        verifiers: the log's public keys, old ones included.
        writer: as `create_log` takes it.
        reader: as `create_log` takes it.

    Raises:
        AuditCorrupt: the head is not proven, here or there.
        WriterLocked: somebody is writing to the file.
        AuditRefused, LogExists, LogUnusable: as `create_log`.
    """
    hold = take_hold(path)
    try:
        with snapshot(hold.engine, path) as source, _new_log(owner, writer, reader) as connection:
            require_revision(source)
            require_own_schema(source, path)
            head = recover_head(source, verifiers).checkpoint
            with _fence_down(connection):
                for table in metadata.sorted_tables:
                    _copy(source, connection, table)
            if recover_head(connection, verifiers).checkpoint != head:
                raise AuditCorrupt(None, "the copy has another head", path=owner)
            return head
    finally:
        hold.let_go()


@contextmanager
def _new_log(owner: PostgresLog, writer: str, reader: str) -> Iterator[Connection]:
    """Make the tables and grant the rights, and let the caller fill them in the same transaction."""
    for role in (writer, reader):
        if not _ROLE_NAME.fullmatch(role):
            raise AuditRefused(f"{role!r} is not a plain role name")
    engine = open_engine(owner, Part.OWNER)
    try:
        with naming_file(owner, LogUnusable), engine.begin() as connection:
            _require_three_roles(connection, owner, writer, reader)
            if connection.execute(text("SELECT to_regnamespace('cloister') IS NOT NULL")).scalar_one():
                raise LogExists(owner)
            connection.execute(text("CREATE SCHEMA cloister"))
            apply_migrations(connection)
            _grant(connection, writer, reader)
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _fence_down(connection: Connection) -> Iterator[None]:
    """Let old rows in; nobody else sees these tables before the transaction is done."""
    for table in metadata.tables:
        connection.execute(text(f"ALTER TABLE cloister.{table} DISABLE TRIGGER USER"))
    yield
    for table, trigger in POSTGRES_TRIGGERS:
        connection.execute(text(f"ALTER TABLE cloister.{table} ENABLE ALWAYS TRIGGER {trigger}"))


def _copy(source: Connection, target: Connection, table: Table) -> None:
    rows = source.execute(select(table).execution_options(yield_per=_ROWS_PER_COPY))
    for part in rows.partitions():
        bulk_insert(target, table, [tuple(row) for row in part])


def _require_three_roles(connection: Connection, owner: PostgresLog, writer: str, reader: str) -> None:
    me = connection.execute(text("SELECT current_user")).scalar_one()
    if len({me, writer, reader}) != 3:  # noqa: PLR2004 - owner, writer, reader
        raise AuditRefused("owner, writer and reader are three different roles")
    for role in (writer, reader):
        query = text(
            "SELECT rolsuper OR rolbypassrls OR pg_has_role(oid, :me, 'MEMBER') FROM pg_roles WHERE rolname = :role"
        )
        found = connection.execute(query, {"role": role, "me": me}).scalar_one_or_none()
        if found is None:
            raise SettingRefused(f"{owner}: the role {role}", "there", "missing", hint="make it first: CREATE ROLE")
        if found:
            raise SettingRefused(f"{owner}: the role {role}", "an ordinary one", "one that could undo the log")


def _grant(connection: Connection, writer: str, reader: str) -> None:
    tables = ", ".join(f"cloister.{name}" for name in sorted(metadata.tables))
    for statement in (
        "REVOKE ALL ON SCHEMA cloister FROM PUBLIC",
        "REVOKE ALL ON ALL TABLES IN SCHEMA cloister FROM PUBLIC",
        "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA cloister FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA cloister TO {writer}, {reader}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA cloister TO {writer}, {reader}",
        f"GRANT INSERT ON {tables} TO {writer}",
        f"GRANT EXECUTE ON FUNCTION cloister.sweep_pruned TO {writer}",
    ):
        connection.execute(text(statement))
