"""The SQLite file of wrapped subject keys: by mark, by id, and destroyed without a trace.

Promise: a key that `insert` returned from is flushed; a key that `destroy` returned from is in no page of the file and
its journal.  Every setting that this rests on is written, read back and compared on connecting.  A fault of the
database is an `AuditError` that names the file: `AuditCorrupt` for damage, `KeyringUnusable` for the machine's no.

Never: make a file that is missing, open one that others may read, see a key in the clear, wait for a lock that another
process holds: it is a no, at once, and reading needs no lock.  One connection, not safe to share: the caller orders its
calls.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.pool import StaticPool

from audit.errors import (
    DAMAGE_HINT,
    AuditCorrupt,
    KeyRefused,
    KeyringUnusable,
    LogMissing,
    SettingRefused,
    SubjectErased,
)
from audit.faults import naming_file, require_content
from audit.new_file import appearing_whole
from audit.stored_bytes import StoredBytes
from audit.subject_keys.key_encryption import WrappedKey

_FORMAT = 2
_SEARCH_BYTES = 2**20
_MAX_IDS_IN_STATEMENT = 500
_SETTINGS: tuple[tuple[str, str, object], ...] = (
    ("busy_timeout", "0", 0),  # the caller may be an event loop: no wait here is short enough
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("fullfsync", "ON", 1),
    ("checkpoint_fullfsync", "ON", 1),
    ("secure_delete", "ON", 1),
    ("trusted_schema", "OFF", 0),
)

_metadata = MetaData()
_subject_key = Table(
    "subject_key",
    _metadata,
    Column("key_id", Text, primary_key=True),
    Column("subject_mark", StoredBytes, nullable=False, index=True),
    Column("nonce", StoredBytes),
    Column("wrapped", StoredBytes),
    Column("destroyed", Integer, nullable=False),
    sqlite_strict=True,
)
_key_check = Table(
    "key_check",
    _metadata,
    Column("nonce", StoredBytes, nullable=False),
    Column("wrapped", StoredBytes, nullable=False),
    sqlite_strict=True,
)
"""One row, of no other use than to tell the right key-encryption key before the first subject comes."""


class KeyFile:
    """One open file; nothing is read from it before the first call."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise LogMissing(path)
        if path.stat().st_mode & 0o077:
            raise SettingRefused("the subject keys' file mode", "0o600", oct(path.stat().st_mode & 0o777))
        require_content(path)
        self.path = path
        self._engine = _engine(path)
        self._reading_engine = self._engine.execution_options(begin="BEGIN")

    @classmethod
    def create(cls, path: Path, check_value: WrappedKey) -> None:
        """Make a file without subjects; it appears whole or not at all."""
        row = {"nonce": check_value.nonce, "wrapped": check_value.wrapped}
        with naming_file(path, KeyringUnusable), appearing_whole(path) as draft:
            with closing(sqlite3.connect(draft)) as raw:
                raw.execute(f"PRAGMA user_version={_FORMAT}")
            engine = _engine(draft)
            try:
                with engine.begin() as connection:
                    _metadata.create_all(connection)
                    connection.execute(insert(_key_check).values(row))
            finally:
                engine.dispose()  # the last connection moves the journal into the file and removes it

    def close(self) -> None:
        """Let the file go."""
        self._engine.dispose()

    def require_sound(self) -> tuple[bytes | None, bytes | None]:
        """Refuse damage now, not at some subject's next request; return nonce and wrapped key of the check value.

        The indexes too: a mark that a damaged index no longer finds would get a second key, and its first one would
        outlive the subject's erasure.
        """
        with self._reading() as connection:
            problem = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
            if problem != "ok":
                raise AuditCorrupt(None, problem, hint=DAMAGE_HINT, path=self.path)
            connection.execute(select(_subject_key).limit(1)).all()
            check = connection.execute(select(_key_check)).one()
        return check.nonce, check.wrapped

    def require_writable(self) -> None:
        """Refuse a file that could not take a new key now: a write that is flushed, and changes nothing."""
        with self._transaction() as connection:
            connection.execute(update(_key_check).values(nonce=_key_check.c.nonce))

    def living(self, mark: bytes) -> WrappedKey | None:
        """Return the one key of a subject that was not destroyed."""
        columns = (_subject_key.c.key_id, _subject_key.c.nonce, _subject_key.c.wrapped)
        query = select(*columns).where(_subject_key.c.subject_mark == mark, _subject_key.c.destroyed == 0)
        with self._reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else WrappedKey(row.key_id, row.nonce, row.wrapped)

    def by_id(self, key_id: str) -> WrappedKey:
        """Return a living key.

        Raises:
            SubjectErased: it was destroyed.
            KeyRefused: there was never such a key here.
        """
        with self._reading() as connection:
            row = connection.execute(select(_subject_key).where(_subject_key.c.key_id == key_id)).one_or_none()
        if row is None:
            raise KeyRefused(f"there is no subject key {key_id}", hint="is this the keyring beside that log?")
        if row.destroyed:
            raise SubjectErased(key_id)
        return WrappedKey(row.key_id, row.nonce, row.wrapped)

    def insert(self, mark: bytes, new: WrappedKey) -> None:
        """Keep a key for a subject that has no living one."""
        row = {
            "key_id": new.key_id,
            "subject_mark": mark,
            "nonce": new.nonce,
            "wrapped": new.wrapped,
            "destroyed": 0,
        }
        with self._transaction() as connection:
            connection.execute(insert(_subject_key).values(row))

    def ids_of(self, mark: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the ids of a subject's living keys, and of its destroyed ones."""
        query = select(_subject_key.c.key_id, _subject_key.c.destroyed).where(_subject_key.c.subject_mark == mark)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(_subject_key.c.key_id)).all()
        return tuple(i for i, destroyed in rows if not destroyed), tuple(i for i, destroyed in rows if destroyed)

    def living_among(self, key_ids: Collection[str]) -> tuple[str, ...]:
        """Return those of these ids whose keys live; nothing is written."""
        found: list[str] = []
        with self._reading() as connection:
            for some in _some_at_a_time(key_ids):
                query = select(_subject_key.c.key_id).where(
                    _subject_key.c.key_id.in_(some), _subject_key.c.destroyed == 0
                )
                found += connection.execute(query).scalars()
        return tuple(sorted(found))

    def destroy(self, key_ids: Collection[str]) -> tuple[str, ...]:
        """Destroy those of these keys that live, for good; return their ids.

        Afterwards file and journal are searched for what was destroyed.

        Raises:
            KeyringUnusable: a trace was found, or the machine refuses.
            SettingRefused: the journal could not be emptied.
        """
        rows: list[WrappedKey] = []
        with self._transaction() as connection:
            for some in _some_at_a_time(key_ids):
                rows += _destroy(connection, some)
        self.empty_write_ahead_log()
        self._require_no_trace([secret for row in rows for secret in (row.nonce, row.wrapped) if secret])
        return tuple(row.key_id for row in rows)

    def _require_no_trace(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            return
        for path in (self.path, self.path.with_name(self.path.name + "-wal")):
            if path.is_file() and _holds_any(path, secrets):
                raise KeyringUnusable(
                    path, "bytes of a destroyed key are still in it", hint="stop what else holds the file, and repeat"
                )

    def empty_write_ahead_log(self) -> None:
        """Leave no old page image behind: `secure_delete` cleans the main file, this the journal."""
        with naming_file(self.path, KeyringUnusable):
            raw = self._engine.raw_connection()
            try:
                busy, _, _ = raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                raw.close()
        if busy:
            raise SettingRefused("the subject keys' journal", "emptied", "held by a reader")

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with naming_file(self.path, KeyringUnusable), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """Read one state of the file, whoever holds the write lock."""
        with naming_file(self.path, KeyringUnusable), self._reading_engine.begin() as connection:
            yield connection


def _engine(path: Path) -> Engine:
    def connect() -> sqlite3.Connection:
        uri = f"file:{quote(str(path.absolute()))}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            _prove_settings(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite://", creator=connect, hide_parameters=True, poolclass=StaticPool)
    event.listen(engine, "begin", _begin)
    return engine


def _some_at_a_time(key_ids: Collection[str]) -> Iterator[list[str]]:
    """As many as one statement takes."""
    ids = sorted(key_ids)
    for start in range(0, len(ids), _MAX_IDS_IN_STATEMENT):
        yield ids[start : start + _MAX_IDS_IN_STATEMENT]


def _destroy(connection: Connection, key_ids: Sequence[str]) -> list[WrappedKey]:
    """Take nonce and wrapped key out of the living rows among these; return what was taken."""
    columns = (_subject_key.c.key_id, _subject_key.c.nonce, _subject_key.c.wrapped)
    living = (_subject_key.c.key_id.in_(key_ids), _subject_key.c.destroyed == 0)
    rows = connection.execute(select(*columns).where(*living).order_by(_subject_key.c.key_id)).all()
    connection.execute(update(_subject_key).where(*living).values(nonce=None, wrapped=None, destroyed=1))
    return [WrappedKey(row.key_id, row.nonce, row.wrapped) for row in rows]


def _holds_any(path: Path, needles: Sequence[bytes]) -> bool:
    """Search a file piece by piece; pieces overlap by what could lie across their border."""
    overlap = max(map(len, needles)) - 1
    before = b""
    with path.open("rb") as file:
        while piece := file.read(_SEARCH_BYTES):
            window = before + piece
            if any(needle in window for needle in needles):
                return True
            before = window[-overlap:] if overlap else b""
    return False


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN IMMEDIATE"))


def _prove_settings(connection: sqlite3.Connection, path: Path) -> None:
    [(written_as,)] = connection.execute("PRAGMA user_version").fetchall()
    if written_as != _FORMAT:
        raise SettingRefused(f"{path}: the format", _FORMAT, written_as)
    for name, value, expected in _SETTINGS:
        connection.execute(f"PRAGMA {name}={value}").fetchall()
        [(found,)] = connection.execute(f"PRAGMA {name}").fetchall()
        if found != expected:
            raise SettingRefused(f"{path}: SQLite's {name}", expected, found)
