"""Connections to a PostgreSQL log that have proven themselves: the server's settings, the session's, the role's rights.

Promise: every connection has read back each setting that durability rests on, and that its role may do no more than its
part: a writer that could UPDATE, DELETE, TRUNCATE, or own the tables, is refused.  A writer's connection holds the
leader's lock from its first moment; there is no other kind.  Never: a password in a message.

Durable means: flushed by the server, and by its synchronous standby where one is named (`synchronous_commit=on`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from hashlib import sha256
from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import QueuePool, StaticPool

from audit.errors import SettingRefused, WriterLocked
from audit.location import PostgresLog
from audit.schema import metadata

LEADER_LOCK = int.from_bytes(sha256(b"cloister: the one writer of this log").digest()[:8], "big", signed=True)
"""Key of the advisory lock; advisory locks are per database, and a database holds one log."""
LEAST_SERVER = 150_000
_LEADER_WAIT = "2s"
_CONNECT_S = 10
_SILENCE_MS = 30_000
"""A peer that does not answer is given up after this time: the network gives no other sign."""

_SESSION: tuple[tuple[str, str], ...] = (
    ("client_encoding", "UTF8"),
    ("lock_timeout", "10s"),
    ("row_security", "off"),  # a policy that would hide rows is an error, never a shorter log
    ("search_path", "cloister"),
    ("synchronous_commit", "on"),
    ("TimeZone", "UTC"),
)
_SERVER_SIDE_KEEPALIVES = (
    ("tcp_keepalives_idle", "4"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
)
"""So that a server from which the network cut us off ends that session, and with it the lock, while we still wait to
come back: by itself it would hold it for two hours.  Not read back: over a local socket they are always 0."""
_SERVER: tuple[tuple[str, str], ...] = (
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("ignore_checksum_failure", "off"),
    ("server_encoding", "UTF8"),
    ("session_replication_role", "origin"),
    ("zero_damaged_pages", "off"),
)
_STOPS, _DIED = "57P01", "57P02"
"""SQLSTATE of a server that stops, and of one that lost another of its processes."""


class Part(Enum):
    """What a connection is for; the value is the rights that its role has on each table of the log."""

    OWNER = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"})
    WRITER = frozenset({"SELECT", "INSERT"})
    READER = frozenset({"SELECT"})


def open_engine(log: PostgresLog, part: Part, *, on_notice: Callable[[str], None] | None = None) -> Engine:
    """Return an engine whose every connection has proven its settings and rights; one connection but for readers.

    Args:
        log: where.
        part: as whom.
        on_notice: called with each warning of the server, in the thread that works with the connection.

    The first connection is made by the first use, which raises then: `SettingRefused`, `WriterLocked`, or the driver's
    own error.
    """

    def connect() -> psycopg.Connection[Any]:
        connection = psycopg.connect(
            log.conninfo,
            application_name=f"cloister {part.name.lower()}",
            connect_timeout=_CONNECT_S,
            keepalives_idle=_SILENCE_MS // 3_000,
            keepalives_interval=_SILENCE_MS // 6_000,
            keepalives_count=3,
            tcp_user_timeout=_SILENCE_MS,
        )
        try:
            if on_notice is not None:
                connection.add_notice_handler(_in_words(on_notice))
            _prove(connection, log, part)
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection

    if part is Part.READER:
        return create_engine(
            "postgresql+psycopg://", creator=connect, hide_parameters=True, poolclass=QueuePool, max_overflow=12
        )
    return create_engine("postgresql+psycopg://", creator=connect, hide_parameters=True, poolclass=StaticPool)


def _in_words(on_notice: Callable[[str], None]) -> Callable[[psycopg.errors.Diagnostic], None]:
    def say(said: psycopg.errors.Diagnostic) -> None:
        if not _is_farewell(said):
            on_notice(f"{said.severity_nonlocalized}: {said.message_primary}")

    return say


def _is_farewell(said: psycopg.errors.Diagnostic) -> bool:
    """Tell the last words of a connection, which are none on a commit: what became of that will be asked for.

    One warning of the same code is about a commit, and says so in its detail: a standby did not confirm it.
    """
    if said.severity_nonlocalized in ("FATAL", "PANIC"):
        return True
    return said.sqlstate == _DIED or (said.sqlstate == _STOPS and said.message_detail is None)


def _prove(connection: psycopg.Connection[Any], log: PostgresLog, part: Part) -> None:
    version = connection.info.server_version
    if version < LEAST_SERVER:
        raise SettingRefused(f"{log}: the server's version", f"{LEAST_SERVER} or newer", version)
    isolation = "repeatable read" if part is Part.READER else "read committed"
    read_only = "on" if part is Part.READER else "off"
    statement_timeout = "0" if part is Part.READER else "30s"  # verifying a large log takes its time
    session = (
        *_SESSION,
        ("default_transaction_isolation", isolation),
        ("default_transaction_read_only", read_only),
        ("statement_timeout", statement_timeout),
    )
    for name, value in (*session, *_SERVER_SIDE_KEEPALIVES):
        connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    connection.commit()  # what a transaction begins with is set from the next one on
    for name, value in (*session, *_SERVER, ("transaction_read_only", read_only)):
        found = _one(connection, "SELECT current_setting(%s)", name)
        if found != value:
            raise SettingRefused(f"{log}: PostgreSQL's {name}", value, found)
    if part is Part.OWNER:
        return
    _prove_rights(connection, log, part)
    if part is Part.WRITER:
        if _one(connection, "SELECT pg_is_in_recovery()"):
            raise SettingRefused(f"{log}: the server", "a primary", "a standby")
        _lock(connection, log)


def _lock(connection: psycopg.Connection[Any], log: PostgresLog) -> None:
    """Win the leader's lock; a session that has just been closed is given a moment to be gone on the server too."""
    connection.execute("SELECT set_config('lock_timeout', %s, true)", (_LEADER_WAIT,))
    try:
        connection.execute("SELECT pg_advisory_lock(%s)", (LEADER_LOCK,))
    except psycopg.errors.LockNotAvailable as error:
        raise WriterLocked(log) from error


def _prove_rights(connection: psycopg.Connection[Any], log: PostgresLog, part: Part) -> None:
    """Refuse a role that may do more, or less, than its part: itself, or as any role that it may become."""
    who = f"{log}: the {part.name.lower()}'s role"
    if _one(connection, "SELECT session_user <> current_user"):
        raise SettingRefused(who, "the one that logged in", "another one", hint=_ROLE_HINT)
    if _one(connection, _IS_SUPER):
        raise SettingRefused(who, "an ordinary one", "a superuser", hint=_ROLE_HINT)
    if _one(connection, _MAY_MAKE_THINGS):
        raise SettingRefused(f"{log}: the rights on the schema", "USAGE", "CREATE", hint=_ROLE_HINT)
    for table in (*sorted(metadata.tables), "alembic_version"):
        relation = f"cloister.{table}"
        if _one(connection, "SELECT to_regclass(%s)", relation) is None:
            raise SettingRefused(f"{log}: the table {table}", "there", "missing", hint=_MADE_BY)
        owned = _one(
            connection, "SELECT pg_has_role(relowner, 'MEMBER') FROM pg_class WHERE oid = to_regclass(%s)", relation
        )
        if owned:
            raise SettingRefused(f"{log}: the owner of {table}", "another role", "this one", hint=_ROLE_HINT)
        wanted = Part.READER.value if table == "alembic_version" else part.value
        held = set(_one(connection, _RIGHTS_HELD, sorted(Part.OWNER.value), relation))
        if held != wanted:
            raise SettingRefused(
                f"{log}: the rights on {table}", ", ".join(sorted(wanted)), ", ".join(sorted(held)), hint=_ROLE_HINT
            )


def _one(connection: psycopg.Connection[Any], query: str, *values: object) -> Any:  # noqa: ANN401 - one cell
    row = connection.execute(query.encode(), values).fetchone()
    return None if row is None else row[0]


_BECOMES = "SELECT oid, rolsuper, rolbypassrls FROM pg_roles WHERE pg_has_role(oid, 'MEMBER')"
"""The role itself, and every one that it may become by SET ROLE."""
_IS_SUPER = f"SELECT EXISTS (SELECT FROM ({_BECOMES}) AS r WHERE rolsuper OR rolbypassrls)"  # noqa: S608 - our own constant
_MAY_MAKE_THINGS = (
    f"SELECT EXISTS (SELECT FROM ({_BECOMES}) AS r "  # noqa: S608 - our own constant
    "WHERE has_schema_privilege(r.oid, to_regnamespace('cloister'), 'CREATE'))"
)
_RIGHTS_HELD = f"""SELECT coalesce(array_agg(p), '{{}}') FROM unnest(%s::text[]) AS p, to_regclass(%s) AS t
WHERE EXISTS (SELECT FROM ({_BECOMES}) AS r WHERE has_table_privilege(r.oid, t, p)
OR CASE WHEN p IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') THEN has_any_column_privilege(r.oid, t, p) END)"""  # noqa: S608 - our own constant
_MADE_BY = "the owner makes the log: cloister audit create-database"
_ROLE_HINT = "a role that may do more than its part can undo the log; see docs/postgresql.md"
