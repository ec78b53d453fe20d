"""Make a log in an empty PostgreSQL database, as its owner: tables, fence, rights, and the signed beginning.

Promise: all of it in one transaction, or nothing; afterwards the writer can insert and read, the reader can read, and
neither can do more.  The two roles exist before; who may log in as whom is the database's administrator's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy import Connection, text

from audit.checkpoint import Checkpoint, LogSigner
from audit.errors import AuditRefused, LogExists, LogUnusable, SettingRefused
from audit.faults import naming_file
from audit.location import PostgresLog
from audit.migrating import apply_migrations
from audit.postgres.engine import Part, open_engine
from audit.schema import metadata
from audit.store import insert_first_checkpoint

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
            return insert_first_checkpoint(connection, signers)
    finally:
        engine.dispose()


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
