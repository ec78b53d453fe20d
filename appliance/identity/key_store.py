"""The records of API keys: one SQLite file of its own, mode 0600, that holds no secret.

Promise: a change is durable when the call returns, and the next `find` sees it, whichever process made it.  Every
value travels as a bound parameter.  One process serves from the file; the command line may change it meanwhile.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from appliance.identity.api_keys import KEY_ID
from appliance.identity.errors import KeyStoreCorrupt, KeyStoreExposed, KeyStoreMissing, KeyStoreUnusable

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x636C736B
"""`clsk`: marks the file as ours."""
MAX_CLEARANCE: Final = 4
_BUSY_S: Final = 5.0
_END_OF_TIME_US: Final = 2**53
"""In the year 2255; larger integers are not the same number to every reader."""
_DIGEST_BYTES: Final = 32

_METADATA: Final = sa.MetaData()
_KEYS: Final = sa.Table(
    "api_keys",
    _METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("env", sa.Text, nullable=False),
    sa.Column("hmac", sa.LargeBinary, sa.CheckConstraint("length(hmac) = 32"), nullable=False),
    sa.Column("pepper_id", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, sa.CheckConstraint("length(owner) > 0"), nullable=False),
    sa.Column("kind", sa.Text, sa.CheckConstraint("kind IN ('User', 'Service')"), nullable=False),
    sa.Column("tenant", sa.Text, sa.CheckConstraint("length(tenant) > 0"), nullable=False),
    sa.Column("roles", sa.Text, nullable=False),  # a JSON array of names, sorted
    sa.Column("clearance", sa.Integer, sa.CheckConstraint("clearance BETWEEN 0 AND 4"), nullable=False),
    sa.Column("not_before_us", sa.Integer, nullable=False),
    sa.Column("expires_at_us", sa.Integer, nullable=False),
    sa.Column("revoked_at_us", sa.Integer),
    sa.Column("last_used_day", sa.Integer),
    sa.CheckConstraint("expires_at_us > not_before_us"),
    sqlite_strict=True,
)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key's record.  Times are UTC microseconds since 1970-01-01."""

    id: str
    env: str
    hmac: bytes = field(repr=False)
    """`api_keys.secret_digest` of the secret."""
    pepper_id: str
    owner: str
    """Id of the principal that the key proves."""
    kind: Literal["User", "Service"]
    tenant: str
    roles: tuple[str, ...]
    """Sorted; empty allows nothing."""
    clearance: int
    not_before_us: int
    expires_at_us: int
    """Every key ends; the key is dead at this very moment."""
    revoked_at_us: int | None = None
    last_used_day: int | None = None
    """Days since 1970-01-01, UTC; coarse on purpose, it is no movement profile."""

    def __post_init__(self) -> None:
        for name, holds in (
            ("id", KEY_ID.fullmatch(self.id) is not None),
            ("hmac", len(self.hmac) == _DIGEST_BYTES),
            ("owner", bool(self.owner)),
            ("kind", self.kind in {"User", "Service"}),
            ("tenant", bool(self.tenant)),
            ("roles", self.roles == tuple(sorted(set(self.roles)))),
            ("clearance", 0 <= self.clearance <= MAX_CLEARANCE),
            ("not_before_us", 0 <= self.not_before_us < _END_OF_TIME_US),
            ("expires_at_us", self.not_before_us < self.expires_at_us <= _END_OF_TIME_US),
        ):
            if not holds:
                raise ValueError(f"key record {self.id!a}: {name} is out of range")


class KeyStore:
    """The open database.

    State and owners: `_connection` and `_records`, both only under `_lock`.  `_records` is every row in memory, so that
    an unknown id and a known one cost the same; it is read again when another process has changed the file.
    """

    def __init__(self, path: Path, engine: sa.Engine) -> None:
        self._path = path
        self._engine = engine
        self._lock = threading.Lock()
        self._connection = engine.connect()
        self._records: dict[str, KeyRecord] = {}
        self._seen_version: int | None = None

    @classmethod
    def create(cls, path: Path) -> KeyStore:
        """Make a new, empty database that only this account may read.

        Raises:
            KeyStoreUnusable: something is already there, or the file system refuses.
        """
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except OSError as failure:
            raise KeyStoreUnusable(
                f"cannot be created ({failure.strerror})",
                path=path,
                hint="choose another state folder, or free the path",
            ) from None
        with _our_errors(path):
            store = cls(path, _engine(path))
        with store._guarded():
            store._connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            _METADATA.create_all(store._connection)
            # Last, so that a file whose making was cut short is never taken for a database.
            store._connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")
            store._connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
        return store

    @classmethod
    def open(cls, path: Path) -> KeyStore:
        """Open an existing database and read it whole.

        Raises:
            KeyStoreError: it is missing, exposed to other accounts, corrupt, or cannot be used.
        """
        _check_file(path)
        with _our_errors(path):
            store = cls(path, _engine(path))
        try:
            with store._guarded():
                store._check_content()
                store._refresh()
        except BaseException:
            store.close()
            raise
        return store

    def find(self, key_id: str) -> KeyRecord | None:
        """The record of a public id, as it is now.

        Raises:
            KeyStoreError: the database cannot be read; nobody may be let in.
        """
        with self._guarded():
            self._refresh()
            return self._records.get(key_id)

    def list(self) -> tuple[KeyRecord, ...]:
        """Every record, by id."""
        with self._guarded():
            self._refresh()
            return tuple(self._records[key_id] for key_id in sorted(self._records))

    def add(self, record: KeyRecord) -> None:
        """Keep a new record.

        Raises:
            KeyStoreUnusable: its id is taken, or the file cannot be written.
        """
        with self._guarded():
            self._connection.execute(sa.insert(_KEYS).values(**_row(record)))
            self._records[record.id] = record

    def revoke(self, key_id: str, at_us: int) -> KeyRecord | None:
        """End a key now; it is refused from the next `find` on.

        Returns:
            The revoked record; one that was revoked before keeps its first time.  None: no such key.
        """
        with self._guarded():
            self._refresh()
            record = self._records.get(key_id)
            if record is None or record.revoked_at_us is not None:
                return record
            self._connection.execute(
                sa.update(_KEYS)
                .where(_KEYS.c.id == key_id, _KEYS.c.revoked_at_us.is_(None))
                .values(revoked_at_us=at_us)
            )
            revoked = replace(record, revoked_at_us=at_us)
            self._records[key_id] = revoked
            return revoked

    def mark_used(self, key_id: str, day: int) -> None:
        """Note the day of a key's last use; writes once a day and key."""
        with self._guarded():
            record = self._records.get(key_id)
            if record is None or (record.last_used_day is not None and record.last_used_day >= day):
                return
            self._connection.execute(sa.update(_KEYS).where(_KEYS.c.id == key_id).values(last_used_day=day))
            self._records[key_id] = replace(record, last_used_day=day)

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            self._connection.close()
            self._engine.dispose()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """The lock, and our errors for the library's."""
        with self._lock, _our_errors(self._path):
            try:
                yield
            except BaseException:
                self._seen_version = None  # a write that failed may still have happened: look again
                raise

    def _refresh(self) -> None:
        """Read the rows again if another connection committed since the last look."""
        version = self._connection.exec_driver_sql("PRAGMA data_version").scalar_one()
        if version == self._seen_version:
            return
        self._records = {row["id"]: self._record(row) for row in self._connection.execute(sa.select(_KEYS)).mappings()}
        self._seen_version = version

    def _record(self, row: Mapping[Any, Any]) -> KeyRecord:
        try:
            return KeyRecord(**{**row, "roles": _roles(row["roles"])})
        except ValueError as failure:
            raise _corrupt(self._path, str(failure)) from None

    def _check_content(self) -> None:
        pragma = self._connection.exec_driver_sql
        if pragma("PRAGMA application_id").scalar_one() != APPLICATION_ID:
            raise _corrupt(self._path, "it is not a key database")
        version = pragma("PRAGMA user_version").scalar_one()
        if version != SCHEMA_VERSION:
            raise _corrupt(self._path, f"version {version}, this release reads version {SCHEMA_VERSION}")
        columns = {row.name for row in pragma(f"PRAGMA table_info({_KEYS.name})")}
        if columns != set(_KEYS.columns.keys()):
            raise _corrupt(self._path, f"the table {_KEYS.name} is missing or has other columns")
        damage = pragma("PRAGMA quick_check(1)").scalar_one()
        if damage != "ok":
            raise _corrupt(self._path, str(damage))


@contextmanager
def _our_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sa.exc.IntegrityError as failure:
        raise KeyStoreUnusable(f"refused the record ({failure.orig})", path=path, hint="mint a new key") from None
    except sa.exc.OperationalError as failure:
        raise KeyStoreUnusable(
            str(failure.orig), path=path, hint="check disk space, permissions and other users of the file"
        ) from None
    except sa.exc.DatabaseError as failure:
        raise _corrupt(path, str(failure.orig)) from None


def _engine(path: Path) -> sa.Engine:
    """One connection, each statement its own durable transaction."""
    engine = sa.create_engine(
        sa.URL.create("sqlite+pysqlite", database=str(path)),
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": _BUSY_S},
        isolation_level="AUTOCOMMIT",
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own connection
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA trusted_schema=OFF")

    return engine


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise KeyStoreMissing(
            "is missing", path=path, hint="restore it from a backup, or provision a new state folder"
        ) from None
    except OSError as failure:
        raise KeyStoreUnusable(str(failure.strerror), path=path, hint="check the path and its permissions") from None
    if not stat.S_ISREG(status.st_mode):
        raise KeyStoreUnusable("is no regular file", path=path, hint="check the path")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise KeyStoreExposed(
            f"has mode {stat.S_IMODE(status.st_mode):04o}",
            path=path,
            hint=f"find out who read it, then: chmod 600 {path}",
        )


def _roles(text: str) -> tuple[str, ...]:
    roles = json.loads(text)
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise ValueError("roles is no array of names")
    return tuple(roles)


def _row(record: KeyRecord) -> dict[str, object]:
    names = (column.name for column in _KEYS.columns)
    row = {name: getattr(record, name) for name in names}
    return {**row, "roles": json.dumps(record.roles)}


def _corrupt(path: Path, what: str) -> KeyStoreCorrupt:
    return KeyStoreCorrupt(
        f"is corrupt ({what})", path=path, hint="restore it from a backup; keys minted since then must be minted again"
    )
