"""The attacker relaxes the schema and stores what no column may hold: a finding each time, never an exception."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from audit_log_builder import PAIRING, SIGNER, build_log, request_events
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import AuditCorrupt
from audit.export import export_log
from audit.leaf import LEAF_COLUMNS
from audit.report import Place, Report
from audit.schema import CHECKPOINT_COLUMNS, NODE_COLUMNS
from audit.verify import verify_log

NUM_EVENTS, BATCH_LENS = 9, [1, 2, 3, 2, 1]
TABLES = ("leaf", "node", "checkpoint", "alembic_version")
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, 5, 2**31, 2**62]),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=4),
    st.binary(max_size=40),
)
"""NULL, INTEGER, REAL, TEXT, BLOB; SQLite has no other kind."""

CELLS = st.sampled_from(
    [("leaf", column) for column in LEAF_COLUMNS]
    + [("node", column) for column in NODE_COLUMNS]
    + [("checkpoint", column) for column in CHECKPOINT_COLUMNS]
    + [("alembic_version", "version_num")]
)


@contextmanager
def relaxed(path: Path) -> Iterator[sqlite3.Connection]:
    """Edit a log whose columns hold anything: every table is made again without kinds, keys, or NOT NULL."""
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA synchronous=OFF")
    for table in TABLES:
        columns = [row[1] for row in raw.execute(f"PRAGMA table_info({table})")]
        rows = raw.execute(f"SELECT * FROM {table}").fetchall()
        raw.execute(f"DROP TABLE {table}")
        raw.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
        raw.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", rows)
    try:
        yield raw
    finally:
        raw.close()


@pytest.fixture(scope="module")
def relaxed_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that is sound but for its schema."""
    path = tmp_path_factory.mktemp("relaxed") / "audit.db"
    build_log(path, request_events(5), BATCH_LENS)
    with relaxed(path) as raw:
        assert raw.execute("SELECT count(*) FROM leaf").fetchall() == [(NUM_EVENTS,)]
    assert {finding.place for finding in verify(path).findings} == {Place.SCHEMA}
    return path


def verify(path: Path) -> Report:
    """Verify with the log's own key."""
    return verify_log(path, [SIGNER.verifier], PAIRING)


@given(st.lists(st.tuples(CELLS, st.integers(0, NUM_EVENTS - 1), VALUES), min_size=1, max_size=3))
@settings(max_examples=250, deadline=None)
def test_any_value_in_any_cell_of_any_table_is_a_finding(
    relaxed_log: Path, edits: list[tuple[tuple[str, str], int, object]]
) -> None:
    """A few cells, of any kind; what is stored again as it was is no change."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.db"
        path.write_bytes(relaxed_log.read_bytes())
        raw = sqlite3.connect(path, isolation_level=None)
        raw.execute("PRAGMA synchronous=OFF")
        before = contents(raw)
        for (table, column), row, value in edits:
            rowid = row % len(before[table]) + 1
            raw.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, rowid))
        after = contents(raw)
        raw.close()
        found = verify(path).findings
        of_rows = [finding for finding in found if finding.place is not Place.SCHEMA]
        of_revision = [finding for finding in found if finding.where == "revision"]
        assert len(of_revision) == (before["alembic_version"] != after["alembic_version"])
        assert bool(of_rows) == any(before[table] != after[table] for table in TABLES[:3])


def contents(raw: sqlite3.Connection) -> dict[str, list[str]]:
    """Every row of every table, told apart by kind as well: 1 is not 1.0."""
    return {table: list(map(repr, raw.execute(f"SELECT * FROM {table} ORDER BY rowid"))) for table in TABLES}


def test_every_kind_in_every_cell_is_found_where_it_is(relaxed_log: Path, tmp_path: Path) -> None:
    """Each cell of the log by itself, with a value of each kind that is not the cell's own."""
    path = tmp_path / "audit.db"
    path.write_bytes(relaxed_log.read_bytes())
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA synchronous=OFF")
    for table in TABLES[:3]:
        for column in [row[1] for row in raw.execute(f"PRAGMA table_info({table})")]:
            [(rowid, before)] = raw.execute(f"SELECT rowid, {column} FROM {table} LIMIT 1 OFFSET 1").fetchall()
            for value in (None, 7, 2**62, 1.0, 2.5, "text", "", b"bytes", b"", float(1 << 20)):
                if (type(value), value) == (type(before), before):
                    continue
                raw.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, rowid))
                found = [finding for finding in verify(path).findings if finding.place is not Place.SCHEMA]
                assert found, (table, column, value)
                assert Place.DATABASE not in {finding.place for finding in found}, found  # the walk went to its end
            raw.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (before, rowid))
    raw.close()
    assert {finding.place for finding in verify(path).findings} == {Place.SCHEMA}


@pytest.mark.parametrize(("column", "place"), [("leaf_bytes", Place.LEAF_BYTES), ("leaf_hash", Place.LEAF_HASH)])
@pytest.mark.parametrize("value", ["NULL", "7", "'text'", "1.5", "x''"])
def test_what_is_not_bytes_is_named_at_its_entry(tmp_path: Path, column: str, place: Place, value: str) -> None:
    """The schema is rewritten in place, one cell emptied: one finding names it, beside those of the schema."""
    path = tmp_path / "audit.db"
    build_log(path, request_events(5), BATCH_LENS)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA writable_schema=ON")
    raw.execute(
        "UPDATE sqlite_master SET sql = replace(replace(sql, 'BLOB NOT NULL', 'BLOB'), 'STRICT', '') "
        "WHERE name = 'leaf'"
    )
    raw.execute("DELETE FROM sqlite_master WHERE name = 'leaf_no_update'")
    raw.close()
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute(f"UPDATE leaf SET {column} = {value} WHERE idx = 4")
    raw.close()
    findings = [finding for finding in verify(path).findings if finding.place is not Place.SCHEMA]
    assert [(finding.place, finding.index) for finding in findings] == [(place, 4)]


@pytest.mark.parametrize("column", ["leaf_bytes", "leaf_hash"])
@pytest.mark.parametrize("value", [None, 7, "text", 1.5])
def test_what_is_not_bytes_is_not_exported(relaxed_log: Path, tmp_path: Path, column: str, value: object) -> None:
    """Said as damage at the entry, with the log's path; no folder appears."""
    path = tmp_path / "audit.db"
    path.write_bytes(relaxed_log.read_bytes())
    path.chmod(0o600)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute(f"UPDATE leaf SET {column} = ? WHERE idx = 3", (value,))
    raw.close()
    with pytest.raises(AuditCorrupt, match=f"{path}, entry 3"):
        export_log(path, tmp_path / "out", SIGNER.verifier)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("column", ["type", "name"])
@pytest.mark.parametrize("value", ["NULL", "7", "x'00ff'", "1.5"])
def test_a_schema_of_no_names_is_a_finding(tmp_path: Path, column: str, value: str) -> None:
    """The list of tables is a table too."""
    path = tmp_path / "audit.db"
    build_log(path, request_events(5), BATCH_LENS)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA writable_schema=ON")
    raw.execute(f"UPDATE sqlite_master SET {column} = {value} WHERE name = 'leaf_no_update'")
    raw.close()
    assert {finding.place for finding in verify(path).findings} <= {Place.SCHEMA, Place.DATABASE}
    assert not verify(path).ok
