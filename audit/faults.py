"""What SQLite or PostgreSQL says about a log, as this package's errors, each naming the place.

Two kinds, because two people act: the machine refuses (a lock, space, permissions, memory), which leaves the content as
it is; or the content is not what was written.  Whatever is not plainly the machine's is counted as damage, so that a
reason that a database adds tomorrow is never mistaken for a passing one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy.exc import DBAPIError, MultipleResultsFound, NoResultFound

from audit.errors import DAMAGE_HINT, AuditCorrupt, AuditError, KeyringUnusable, LogUnusable
from audit.location import LogLocation

_MACHINE_CODES = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_SERVER_CLASSES = ("08", "25", "28", "3D", "40", "42501", "53", "55", "57", "58")
"""SQLSTATE prefixes by which PostgreSQL refuses: connection, credentials, rights, resources, locks, shutdown, I/O."""
_LEAST_LEN = 512
"""SQLite's smallest page."""
_PRIMARY_CODE = 0xFF
_MACHINE_HINT = "check space, owner, permissions and who else holds the file, then start again"


@contextmanager
def naming_file(path: LogLocation, unusable: type[LogUnusable | KeyringUnusable]) -> Iterator[None]:
    """Turn the faults of the database at `path` into `AuditCorrupt` or, where the machine refuses, `unusable`."""
    try:
        yield
    except DBAPIError as error:  # `orig` alone: the whole text holds the statement
        raise _named(path, error.orig, unusable) from error
    except sqlite3.Error as error:
        raise _named(path, error, unusable) from error
    except OSError as error:
        raise unusable(path, error.strerror or str(error), hint=_MACHINE_HINT) from error
    except (NoResultFound, MultipleResultsFound) as error:
        raise AuditCorrupt(None, "a row is missing or stands there twice", hint=DAMAGE_HINT, path=path) from error
    except UnicodeDecodeError as error:  # SQLite quotes the damaged schema, and Python cannot read the quotation
        raise AuditCorrupt(None, "what names its tables is not text", hint=DAMAGE_HINT, path=path) from error
    except AuditCorrupt as error:
        if error.path is not None:
            raise
        raise AuditCorrupt(error.index, error.what, hint=error.hint or DAMAGE_HINT, path=path) from error


def require_content(path: Path) -> None:
    """Refuse an emptied file, or one cut in its header, which SQLite takes for new and would write a header into.

    By its size alone: opening it here would, on closing, drop the locks that this process holds on it.
    """
    length = path.stat().st_size
    if length < _LEAST_LEN:
        raise AuditCorrupt(None, f"a file of {length} bytes is no database", hint=DAMAGE_HINT, path=path)


def is_no_writing(fault: BaseException | None) -> bool:
    """Tell whether the machine refuses to write, as SQLite must to make its index of a journal."""
    return _primary_code(fault) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


def is_refusal(fault: BaseException | None) -> bool:
    """Tell whether the machine or the server says no, as against damage."""
    if isinstance(fault, psycopg.Error):
        if fault.sqlstate is None:  # no server answered, or the driver itself is at fault
            return isinstance(fault, psycopg.OperationalError)
        return fault.sqlstate.startswith(_SERVER_CLASSES)
    return _primary_code(fault) in _MACHINE_CODES


def _named(path: LogLocation, fault: BaseException | None, unusable: type[LogUnusable | KeyringUnusable]) -> AuditError:
    if is_refusal(fault):
        return unusable(path, str(fault), hint=_MACHINE_HINT)
    return AuditCorrupt(None, str(fault), hint=DAMAGE_HINT, path=path)


def _primary_code(fault: BaseException | None) -> int | None:
    code = getattr(fault, "sqlite_errorcode", None)  # absent where Python itself could not read a value
    return None if code is None else code & _PRIMARY_CODE
