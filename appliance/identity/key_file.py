"""The key database as a file: one SQLite table, mode 0600, that holds no secret.

Promise: a change is durable when the call returns; a file that is missing, open to others, damaged or not ours is an
error with its remedy, never an empty database and never a traceback.  Every value travels as a bound parameter.

Never: remembers a row.  Other connections, of this process or another, may change the file at any time; `version`
tells that one did.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from appliance.identity.errors import KeyStoreCorrupt, KeyStoreExposed, KeyStoreMissing, KeyStoreUnusable
from appliance.identity.key_record import KeyRecord

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x636C736B
"""`clsk`: marks the file as ours."""
BUSY_S: Final = 5.0

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


class KeyFile:
    """One connection, each statement its own durable transaction.  Whoever owns it serializes its calls.

    Every method raises `KeyStoreError` when the file cannot be used; a write that raised may have happened.
    """

    def __init__(self, path: Path, engine: sa.Engine) -> None:
        self.path = path
        self._engine = engine
        with _our_errors(path):
            self._connection = engine.connect()

    @classmethod
    def create(cls, path: Path) -> KeyFile:
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
        file = cls(path, _engine(path, BUSY_S))
        with file._closing_on_failure(), _our_errors(path):
            file._connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            _METADATA.create_all(file._connection)
            # Last, so that a file whose making was cut short is never taken for a database.
            file._connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")
            file._connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
        return file

    @classmethod
    def open(cls, path: Path, *, busy_s: float = BUSY_S) -> KeyFile:
        """Open an existing database.

        Args:
            path: of the file.
            busy_s: how long a write waits for another connection's.

        Raises:
            KeyStoreError: it is missing, exposed to other accounts, corrupt, or cannot be used.
        """
        _check_file(path)
        file = cls(path, _engine(path, busy_s))
        with file._closing_on_failure(), _our_errors(path):
            file._check_content()
        return file

    def version(self) -> int:
        """Give a number that differs from the last one when another connection has committed since."""
        with _our_errors(self.path):
            return int(self._connection.exec_driver_sql("PRAGMA data_version").scalar_one())

    def read(self) -> dict[str, KeyRecord]:
        """Give every record by its id."""
        with _our_errors(self.path):
            return {row["id"]: self._record(row) for row in self._connection.execute(sa.select(_KEYS)).mappings()}

    def insert(self, record: KeyRecord) -> None:
        """Keep a new record.  Raises KeyStoreUnusable, among others, when its id is taken."""
        with _our_errors(self.path):
            self._connection.execute(sa.insert(_KEYS).values(**_row(record)))

    def revoke(self, key_id: str, at_us: int) -> None:
        """Note a key's end; one that is noted already stays."""
        with _our_errors(self.path):
            self._connection.execute(
                sa.update(_KEYS)
                .where(_KEYS.c.id == key_id, _KEYS.c.revoked_at_us.is_(None))
                .values(revoked_at_us=at_us)
            )

    def note_use(self, key_ids: Collection[str], day: int) -> None:
        """Note the day of the keys' last use, all in one transaction; an earlier day never replaces a later one."""
        named = sa.func.json_each(json.dumps(sorted(key_ids))).table_valued("value")  # one parameter, however many
        last = _KEYS.c.last_used_day
        with _our_errors(self.path):
            self._connection.execute(
                sa.update(_KEYS)
                .where(_KEYS.c.id.in_(sa.select(named.c.value)), sa.or_(last.is_(None), last < day))
                .values(last_used_day=day)
            )

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()
        self._engine.dispose()

    @contextmanager
    def _closing_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _record(self, row: Mapping[Any, Any]) -> KeyRecord:
        try:
            return KeyRecord(**{**row, "roles": _roles(row["roles"])})
        except ValueError as failure:
            raise _corrupt(self.path, str(failure)) from None

    def _check_content(self) -> None:
        pragma = self._connection.exec_driver_sql
        if pragma("PRAGMA application_id").scalar_one() != APPLICATION_ID:
            raise _corrupt(self.path, "it is not a key database")
        version = pragma("PRAGMA user_version").scalar_one()
        if version != SCHEMA_VERSION:
            raise _corrupt(self.path, f"version {version}, this release reads version {SCHEMA_VERSION}")
        columns = {row.name for row in pragma(f"PRAGMA table_info({_KEYS.name})")}
        if columns != set(_KEYS.columns.keys()):
            raise _corrupt(self.path, f"the table {_KEYS.name} is missing or has other columns")
        damage = pragma("PRAGMA quick_check(1)").scalar_one()
        if damage != "ok":
            raise _corrupt(self.path, str(damage))


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


def _engine(path: Path, busy_s: float) -> sa.Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite+pysqlite", database=str(path)),
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": busy_s},
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
