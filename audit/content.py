"""Commitments to content that can be proven while the subject's key lives, and never after it is destroyed.

A commitment is HMAC-SHA256 over the content, under a key derived from the subject's key, the request and the phase; so
two equal prompts have unrelated commitments, and nobody can try out guesses without the key.  Subject keys lie in a
database of their own beside the log, each wrapped with AES-256-GCM by a key-encryption key from a file; the subject's
name is not in it, only a keyed mark.  Destroying a subject's keys leaves every leaf and proof as it is and makes the
commitments unprovable: that is the erasure.

What destruction cannot reach: copies of this database made earlier, and blocks that a disk remapped.  Back it up on a
short cycle, apart from the log; a new key-encryption key makes old copies useless.
"""

from __future__ import annotations

import hmac
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self
from urllib.parse import quote

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    insert,
    select,
)
from sqlalchemy import update as sql_update
from sqlalchemy.pool import StaticPool

from audit.errors import (
    AuditCorrupt,
    KeyRefused,
    KeyringUnusable,
    LogExists,
    LogMissing,
    SettingRefused,
    SubjectErased,
)
from audit.faults import DAMAGE_HINT, naming_file, require_content

_KEY_BYTES = 32
_NONCE_BYTES = 12
_KEY_ID_BYTES = 16
_CACHE_LEN = 4_096
_FORMAT = 2
_CHECK_ID = "key check"
_SETTINGS: tuple[tuple[str, str, object], ...] = (
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
    Column("subject_mark", LargeBinary, nullable=False, index=True),
    Column("nonce", LargeBinary),
    Column("wrapped", LargeBinary),
    Column("destroyed", Integer, nullable=False),
    sqlite_strict=True,
)
_key_check = Table(
    "key_check",
    _metadata,
    Column("nonce", LargeBinary, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    sqlite_strict=True,
)
"""One row, of no other use than to tell the right key-encryption key before the first subject comes."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """What a leaf may say about content."""

    key_id: str
    hmac_hex: str


class SubjectKeyring:
    """The subject keys under one key-encryption key; safe to use from several threads.

    The first commitment of a subject writes and flushes its new key, later ones work from memory.  A fault of the
    database is an `AuditError` that names the file: `AuditCorrupt` for damage, `KeyringUnusable` for the machine's no.
    """

    def __init__(self, path: Path, key_encryption_key: bytes) -> None:
        if not path.is_file():
            raise LogMissing(path)
        if path.stat().st_mode & 0o077:
            raise SettingRefused("the subject keys' file mode", "0o600", oct(path.stat().st_mode & 0o777))
        require_content(path)
        self._path = path
        self._wrapping = _wrapping(key_encryption_key)
        self._mark_key = _derive(key_encryption_key, b"cloister subject mark v1")
        # Guarded by the lock, which also orders the database's one connection:
        self._lock = Lock()
        self._cache: OrderedDict[bytes, tuple[str, bytes]] = OrderedDict()
        self._engine = _open(path)
        try:
            with self._transaction() as connection:
                self._prove_sound(connection)
        except BaseException:
            self._engine.dispose()
            raise

    @classmethod
    def create(cls, path: Path, key_encryption_key: bytes) -> Self:
        """Make an empty keyring."""
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError as error:
            raise LogExists(path) from error
        nonce = os.urandom(_NONCE_BYTES)
        check = _wrapping(key_encryption_key).encrypt(nonce, os.urandom(_KEY_BYTES), _CHECK_ID.encode())
        with naming_file(path, KeyringUnusable):
            raw = sqlite3.connect(path)
            raw.execute(f"PRAGMA user_version={_FORMAT}")
            raw.close()
            engine = _open(path)
            with engine.begin() as connection:
                _metadata.create_all(connection)
                connection.execute(insert(_key_check).values(nonce=nonce, wrapped=check))
            engine.dispose()
        return cls(path, key_encryption_key)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Forget the keys in memory and let the file go."""
        with self._lock:
            self._cache.clear()
            self._engine.dispose()

    def commitment(self, subject_id: str, request_id: str, phase: str, content: bytes) -> Commitment:
        """Commit to content; a subject without a living key gets a new one."""
        mark = self._mark(subject_id)
        with self._lock:
            key_id, key = self._living_key(mark) or self._new_key(mark)
        return Commitment(key_id, _commit(key, request_id, phase, content))

    def prove_writable(self) -> None:
        """Prove that a subject without a key could have one now: a write that is flushed, and changes nothing."""
        with self._lock, self._transaction() as connection:
            connection.execute(sql_update(_key_check).values(nonce=_key_check.c.nonce))

    def check(self, commitment: Commitment, request_id: str, phase: str, content: bytes) -> bool:
        """Tell whether the commitment is to this content.

        Raises:
            SubjectErased: the key was destroyed; nobody can tell any more.
            KeyRefused: there was never such a key here.
        """
        with self._lock:
            key = self._key_by_id(commitment.key_id)
        return hmac.compare_digest(_commit(key, request_id, phase, content), commitment.hmac_hex)

    def destroy(self, subject_id: str) -> tuple[str, ...]:
        """Destroy every living key of a subject for good; return their ids, for the record that the caller owes."""
        mark = self._mark(subject_id)
        with self._lock:
            self._cache.pop(mark, None)
            living = (_subject_key.c.subject_mark == mark, _subject_key.c.destroyed == 0)
            with self._transaction() as connection:
                key_ids = tuple(connection.execute(select(_subject_key.c.key_id).where(*living)).scalars())
                gone = sql_update(_subject_key).where(*living).values(nonce=None, wrapped=None, destroyed=1)
                connection.execute(gone)
            self._empty_write_ahead_log()
        return key_ids

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with naming_file(self._path, KeyringUnusable), self._engine.begin() as connection:
            yield connection

    def _prove_sound(self, connection: Connection) -> None:
        """Refuse damage and the wrong key-encryption key now, not at some subject's next request.

        The indexes too: a mark that a damaged index no longer finds would get a second key, and its first one would
        outlive the subject's erasure.
        """
        problem = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
        if problem != "ok":
            raise AuditCorrupt(None, problem, hint=DAMAGE_HINT, path=self._path)
        connection.execute(select(_subject_key).limit(1)).all()
        check = connection.execute(select(_key_check)).one()
        self._unwrap(_CHECK_ID, check.nonce, check.wrapped)

    def _living_key(self, mark: bytes) -> tuple[str, bytes] | None:
        cached = self._cache.get(mark)
        if cached is not None:
            self._cache.move_to_end(mark)
            return cached
        columns = (_subject_key.c.key_id, _subject_key.c.nonce, _subject_key.c.wrapped)
        query = select(*columns).where(_subject_key.c.subject_mark == mark, _subject_key.c.destroyed == 0)
        with self._transaction() as connection:
            row = connection.execute(query).one_or_none()
        return (
            None if row is None else self._remember(mark, row.key_id, self._unwrap(row.key_id, row.nonce, row.wrapped))
        )

    def _new_key(self, mark: bytes) -> tuple[str, bytes]:
        key_id, key, nonce = os.urandom(_KEY_ID_BYTES).hex(), os.urandom(_KEY_BYTES), os.urandom(_NONCE_BYTES)
        wrapped = self._wrapping.encrypt(nonce, key, key_id.encode())
        row = {"key_id": key_id, "subject_mark": mark, "nonce": nonce, "wrapped": wrapped, "destroyed": 0}
        with self._transaction() as connection:
            connection.execute(insert(_subject_key).values(row))
        return self._remember(mark, key_id, key)

    def _key_by_id(self, key_id: str) -> bytes:
        with self._transaction() as connection:
            row = connection.execute(select(_subject_key).where(_subject_key.c.key_id == key_id)).one_or_none()
        if row is None:
            raise KeyRefused(f"there is no subject key {key_id}", hint="is this the keyring beside that log?")
        if row.destroyed:
            raise SubjectErased(key_id)
        return self._unwrap(row.key_id, row.nonce, row.wrapped)

    def _unwrap(self, key_id: str, nonce: bytes | None, wrapped: bytes | None) -> bytes:
        what = "the check value" if key_id == _CHECK_ID else f"subject key {key_id}"
        if nonce is None or wrapped is None:
            raise AuditCorrupt(None, f"{what} is gone, but not marked destroyed", hint=DAMAGE_HINT, path=self._path)
        try:
            return self._wrapping.decrypt(nonce, wrapped, key_id.encode())
        except (InvalidTag, ValueError) as error:  # the latter for a nonce of no possible length
            hint = "is it the right key-encryption key? If so, keep the file for the auditor and restore a copy"
            raise AuditCorrupt(None, f"{what} cannot be unwrapped", hint=hint, path=self._path) from error

    def _remember(self, mark: bytes, key_id: str, key: bytes) -> tuple[str, bytes]:
        self._cache[mark] = (key_id, key)
        if len(self._cache) > _CACHE_LEN:
            self._cache.popitem(last=False)
        return key_id, key

    def _mark(self, subject_id: str) -> bytes:
        return hmac.digest(self._mark_key, subject_id.encode(), "sha256")

    def _empty_write_ahead_log(self) -> None:
        """Leave no old page image behind: `secure_delete` cleans the main file, this the journal."""
        with naming_file(self._path, KeyringUnusable):
            raw = self._engine.raw_connection()
            try:
                busy, _, _ = raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                raw.close()
        if busy:
            raise SettingRefused("the subject keys' journal", "emptied", "held by a reader")


def read_key_encryption_key(path: Path) -> bytes:
    """Read a file of 32 raw bytes or 64 hexadecimal digits that only its owner can read."""
    try:
        mode, material = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise KeyRefused(f"the key-encryption key {path} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise KeyRefused(f"the key-encryption key {path} is open to others", hint="chmod 600")
    if len(material) == _KEY_BYTES:
        return material
    try:
        key = bytes.fromhex(material.decode().strip())
    except ValueError as error:
        raise KeyRefused(f"the key-encryption key {path} is neither 32 bytes nor 64 hexadecimal digits") from error
    if len(key) != _KEY_BYTES:
        raise KeyRefused(f"the key-encryption key {path} has {len(key)} bytes, not {_KEY_BYTES}")
    return key


def _commit(key: bytes, request_id: str, phase: str, content: bytes) -> str:
    context = b"".join(len(part).to_bytes(4, "big") + part for part in (request_id.encode(), phase.encode()))
    return hmac.new(_derive(key, b"cloister commitment v1" + context), content, sha256).hexdigest()


def _derive(key: bytes, purpose: bytes) -> bytes:
    if len(key) != _KEY_BYTES:
        raise KeyRefused(f"a key has {_KEY_BYTES} bytes, this one {len(key)}")
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=purpose).derive(key)


def _wrapping(key_encryption_key: bytes) -> AESGCM:
    return AESGCM(_derive(key_encryption_key, b"cloister subject key wrapping v1"))


def _open(path: Path) -> Engine:
    def connect() -> sqlite3.Connection:
        uri = f"file:{quote(str(path.absolute()))}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            _prove_settings(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite://", creator=connect, hide_parameters=True, poolclass=StaticPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _prove_settings(connection: sqlite3.Connection, path: Path) -> None:
    [(written_as,)] = connection.execute("PRAGMA user_version").fetchall()
    if written_as != _FORMAT:
        raise SettingRefused(f"{path}: the format", _FORMAT, written_as)
    for name, value, expected in _SETTINGS:
        connection.execute(f"PRAGMA {name}={value}").fetchall()
        [(found,)] = connection.execute(f"PRAGMA {name}").fetchall()
        if found != expected:
            raise SettingRefused(f"{path}: SQLite's {name}", expected, found)
