"""Every row of a 500-leaf log deleted, inserted, swapped, repeated; every older state, every false tree: all is found.

The long lane: `make tamper` runs it beside `test_tamper_every_bit.py` and prints the table.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from audit_log_builder import OTHER_SIGNER, PAIRING, SIGNER, attacker, make_event
from tamper_table import TamperRow, note
from tampered_log import (
    AGAINST_ANCHOR,
    BATCH_LENS,
    CONTENT_EVERY,
    EVENTS,
    FLOOR,
    FLOOR_INDEX,
    NUM_LEAVES,
    OURS,
    SIZES,
    build,
    findings,
    note_at,
)

from audit.checkpoint import LogSigner
from audit.leaf import LEAF_COLUMNS
from audit.report import Place
from audit.verify import verify_log

pytestmark = pytest.mark.slow
Change = tuple[str, Callable[[sqlite3.Connection], object], set[tuple[Place, int | None]]]
"""What is done, how, and of which findings one must be there."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log, whole."""
    path = tmp_path_factory.mktemp("honest") / "audit.db"
    build(path)
    return path


def deletions(raw: sqlite3.Connection) -> Iterator[Change]:
    """Each row, gone."""
    for index in range(NUM_LEAVES):
        yield "leaf deleted", sql("DELETE FROM leaf WHERE idx = ?", index), {(Place.LEAF_ROW, index)}
    for level, index in raw.execute("SELECT level, idx FROM node").fetchall():
        delete = sql("DELETE FROM node WHERE level = ? AND idx = ?", level, index)
        yield "node deleted", delete, {(Place.NODE, index << level)}
    for index, policy_id in raw.execute("SELECT idx, policy_id FROM leaf_policy").fetchall():
        delete = sql("DELETE FROM leaf_policy WHERE idx = ? AND policy_id = ?", index, policy_id)
        yield "policy id deleted", delete, {(Place.BESIDE, index)}
    for index, phase in raw.execute("SELECT idx, phase FROM content").fetchall():
        delete = sql("DELETE FROM content WHERE idx = ? AND phase = ?", index, phase)
        yield "sealed content deleted", delete, {(Place.CONTENT, index)}
        hidden = sql("INSERT INTO pruning VALUES ('content', ?, ?)", index + 1, index)
        yield "sealed content deleted under a false floor", both(delete, hidden), {(Place.BESIDE, index)}
    yield "floor deleted", sql("DELETE FROM pruning"), {(Place.BESIDE, FLOOR_INDEX)}
    for size, following in zip(SIZES, [*SIZES[1:], None], strict=True):
        missing = {(Place.CHECKPOINT_ROW, size)} if following else {(Place.LEAF_ROW, SIZES[-2])}
        yield "checkpoint deleted", sql("DELETE FROM checkpoint WHERE size = ?", size), missing


def insertions(raw: sqlite3.Connection) -> Iterator[Change]:
    """Copies of rows in places that are free, and nodes that no tree of this size has."""
    del raw
    columns = ", ".join(LEAF_COLUMNS[1:])
    for index in range(NUM_LEAVES):
        place = NUM_LEAVES + index
        copy = sql(f"INSERT INTO leaf (idx, {columns}) SELECT ?, {columns} FROM leaf WHERE idx = ?", place, index)
        yield "leaf inserted", copy, {(Place.LEAF_ROW, place)}
    for level in range(1, NUM_LEAVES.bit_length() + 1):
        insert = sql("INSERT INTO node VALUES (?, ?, zeroblob(32))", level, NUM_LEAVES >> level)
        yield "node inserted", insert, {(Place.NODE, None)}
    for index in range(NUM_LEAVES):
        insert = sql("INSERT INTO leaf_policy VALUES (?, 'site.other')", index)
        yield "policy id inserted", insert, {(Place.BESIDE, index)}
        phase = "third" if index % CONTENT_EVERY == 0 else "prompt"
        insert = sql("INSERT INTO content VALUES (?, ?, 'key', zeroblob(12), zeroblob(48))", index, phase)
        yield "sealed content inserted", insert, {(Place.CONTENT, index)}
        insert = sql("INSERT INTO pruning VALUES ('content', ?, ?)", index + FLOOR.minimum_index + 1, index)
        yield "floor inserted", insert, {(Place.BESIDE, index)}
    for size in sorted(set(range(NUM_LEAVES + 9)) - set(SIZES)):
        nearest = max(one for one in SIZES if one <= size)
        copy = sql("INSERT INTO checkpoint SELECT ?, root, note FROM checkpoint WHERE size = ?", size, nearest)
        yield "checkpoint inserted", copy, {(Place.CHECKPOINT_ROW, size)}


def swaps(raw: sqlite3.Connection) -> Iterator[Change]:
    """Neighbours exchanged, whole rows but for their keys."""
    for index in range(NUM_LEAVES - 1):
        yield "leaves swapped", swap("leaf", "idx", index, index + 1), {(Place.LEAF_ROW, index)}
    for level, index in raw.execute("SELECT level, idx FROM node WHERE idx % 2 = 0").fetchall():
        if raw.execute("SELECT 1 FROM node WHERE level = ? AND idx = ?", (level, index + 1)).fetchone():
            exchange = swap("node", "idx", index, index + 1, f"level = {level} AND ")
            yield "nodes swapped", exchange, {(Place.NODE, index << level)}
    sealed = [row[0] for row in raw.execute("SELECT DISTINCT idx FROM content ORDER BY idx").fetchall()]
    for index, following in itertools.pairwise(sealed):
        yield "sealed contents swapped", swap("content", "idx", index, following), {(Place.CONTENT, index)}
        renames = (("prompt", "x"), ("output", "prompt"), ("x", "output"))
        yield "phases swapped", both(*(renamed(index, *names) for names in renames)), {(Place.CONTENT, index)}
    for index in range(NUM_LEAVES - 1):
        if index % 3 != (index + 1) % 3 and FLOOR_INDEX not in (index, index + 1):
            yield "policy ids swapped", swap("leaf_policy", "idx", index, index + 1), {(Place.BESIDE, index)}
    for one, other in itertools.pairwise(SIZES):
        yield "checkpoints swapped", swap("checkpoint", "size", one, other), {(Place.CHECKPOINT_ROW, one)}


def repetitions(raw: sqlite3.Connection) -> Iterator[Change]:
    """The same row twice, in a table that the attacker made anew without a key."""
    del raw
    for index in range(0, NUM_LEAVES, 10):
        yield "leaf repeated", doubled("leaf", f"idx = {index}"), {(Place.LEAF_ROW, index)}
    for size in SIZES[::5]:
        yield "checkpoint repeated", doubled("checkpoint", f"size = {size}"), {(Place.SCHEMA, None)}
    for index in range(0, NUM_LEAVES // 2, 10):
        yield "node repeated", doubled("node", f"level = 1 AND idx = {index}"), {(Place.SCHEMA, None)}


def sql(statement: str, *values: object) -> Callable[[sqlite3.Connection], object]:
    """One statement."""
    return lambda raw: raw.execute(statement, values)


def renamed(index: int, phase: str, other: str) -> Callable[[sqlite3.Connection], object]:
    """Call one sealed content by another phase."""
    return sql("UPDATE content SET phase = ? WHERE idx = ? AND phase = ?", other, index, phase)


def both(*changes: Callable[[sqlite3.Connection], object]) -> Callable[[sqlite3.Connection], object]:
    """One after the other."""
    return lambda raw: [change(raw) for change in changes]


def swap(table: str, key: str, one: int, other: int, condition: str = "") -> Callable[[sqlite3.Connection], object]:
    """Exchange two rows by way of a key that nobody has."""

    def run(raw: sqlite3.Connection) -> None:
        for start, end in ((one, -1), (other, one), (-1, other)):
            raw.execute(f"UPDATE {table} SET {key} = ? WHERE {condition}{key} = ?", (end, start))

    return run


def doubled(table: str, condition: str) -> Callable[[sqlite3.Connection], object]:
    """Put a row in twice."""

    def run(raw: sqlite3.Connection) -> None:
        raw.execute(f"CREATE TABLE other AS SELECT * FROM {table}")
        raw.execute(f"INSERT INTO other SELECT * FROM {table} WHERE {condition}")
        raw.execute(f"DROP TABLE {table}")
        raw.execute(f"ALTER TABLE other RENAME TO {table}")

    return run


@pytest.mark.parametrize("kind", [deletions, insertions, swaps, repetitions])
def test_every_row_deleted_inserted_swapped_or_repeated_is_found(
    tmp_path: Path, honest: Path, kind: Callable[..., Iterator[Change]]
) -> None:
    """One change at a time, on a copy of the log each."""
    log, whole = tmp_path / "audit.db", honest.read_bytes()
    with attacker(honest) as raw:
        changes = list(kind(raw))
    for what, change, wanted in changes:
        log.write_bytes(whole)
        log.with_name("audit.db-wal").unlink(missing_ok=True)
        with attacker(log) as raw:
            change(raw)
        report = verify_log(log, [SIGNER.verifier], PAIRING)
        assert wanted & {(finding.place, finding.index) for finding in report.findings}, (what, wanted)
        note(TamperRow(what, OURS, 1, 0, 1))


def test_every_older_state_is_found_against_a_kept_checkpoint(tmp_path: Path, honest: Path) -> None:
    """The tail cut back to each signed head, and the backup that was taken there: sound alone, found by the anchor."""
    anchor = note_at(honest, NUM_LEAVES)
    for number, size in enumerate(SIZES[:-1]):
        older = tmp_path / "audit.db"
        older.unlink(missing_ok=True)
        build(older, EVENTS[:size], BATCH_LENS[:number])
        assert findings(older) == []
        assert findings(older, known_notes=[anchor]) == [(Place.TRUNCATED, size, "")]
        older.write_bytes(honest.read_bytes())
        cut_back(older, size)
        alone = findings(older)
        assert {place for place, _, _ in alone} <= {Place.CONTENT}
        assert not alone or size <= FLOOR_INDEX  # contents were swept by an act that is cut off: that shows alone
        assert set(findings(older, known_notes=[anchor])) - set(alone) == {(Place.TRUNCATED, size, "")}
        note(TamperRow("old backup restored", AGAINST_ANCHOR, 1, 0, 1))
        note(TamperRow("tail cut to a checkpoint", AGAINST_ANCHOR, 1, 0, 1))


def cut_back(path: Path, keep: int) -> None:
    """Take away every row that is newer."""
    with attacker(path) as raw:
        for table in ("leaf", "leaf_policy", "content", "pruning"):
            raw.execute(f"DELETE FROM {table} WHERE idx >= ?", (keep,))
        raw.execute("DELETE FROM node WHERE (idx + 1) << level > ?", (keep,))
        raw.execute("DELETE FROM checkpoint WHERE size > ?", (keep,))


@pytest.mark.parametrize("signer", [SIGNER, OTHER_SIGNER], ids=["with the key", "without the key"])
def test_every_leaf_rewritten_in_a_rebuilt_tree_is_found(tmp_path: Path, honest: Path, signer: LogSigner) -> None:
    """All of the tree is made anew around one false leaf: the key does not help against a head that was kept."""
    anchors = [note_at(honest, size) for size in SIZES[1:]]
    has_key = signer is SIGNER
    for index in range(1, NUM_LEAVES, 5):
        path = tmp_path / "audit.db"
        path.unlink(missing_ok=True)
        false = make_event(index, EVENTS[index].kind, EVENTS[index].subject, seed=-1, policy_ids=["site.other"])
        build(path, [*EVENTS[:index], false, *EVENTS[index + 1 :]], BATCH_LENS, signer)
        if has_key:
            assert [one for one in findings(path) if one[0] is not Place.STATE] == []
            before = max(size for size in SIZES if size <= index)
            assert (Place.FORK, before, "") in findings(path, known_notes=anchors)
        else:
            assert (Place.CHECKPOINT_SIGNATURE, SIZES[-1], "") in findings(path)
        note(
            TamperRow(
                f"tree rebuilt {'with' if has_key else 'without'} the key", AGAINST_ANCHOR if has_key else OURS, 1, 0, 1
            )
        )
