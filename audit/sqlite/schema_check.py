"""Tables, indexes and triggers of a SQLite log, held against those that the migrations make, text by text.

Without its triggers a log can be edited, without an index a search misses entries; so a difference is a finding, and a
writer does not open such a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from audit.migrating import apply_migrations


def schema_faults(connection: Connection) -> list[tuple[str, str, str]]:
    """Return kind, name and fault of every table, index or trigger that is not exactly as the migrations made it.

    In an altered file kind and name may be no text either.
    """
    expected, stored = expected_schema(), stored_schema(connection)
    faults: list[tuple[str, str, str]] = []
    for kind, name in sorted(expected.keys() | stored.keys(), key=str):
        if (kind, name) not in stored:
            faults.append((str(kind), str(name), "is missing"))
        elif (kind, name) not in expected or expected[kind, name] != stored[kind, name]:
            faults.append((str(kind), str(name), "is not as the migrations made it"))
    return faults


@lru_cache(maxsize=1)
def expected_schema() -> Mapping[tuple[str, str], str | None]:
    """Return `(type, name) -> SQL` of everything that the migrations make."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        apply_migrations(connection)
        expected = stored_schema(connection)
    engine.dispose()
    return MappingProxyType(expected)


def stored_schema(connection: Connection) -> dict[tuple[str, str], str | None]:
    """Return `(type, name) -> SQL` of everything that this database has."""
    rows = connection.exec_driver_sql("SELECT type, name, sql FROM sqlite_master").all()
    return {(row[0], row[1]): row[2] for row in rows}
