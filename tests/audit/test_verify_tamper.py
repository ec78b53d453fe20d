"""The attacker owns the database file and everything but the log key: each change is found, and named where it is."""

from __future__ import annotations

import dataclasses
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from audit_log_builder import (
    OTHER_SIGNER,
    PAIRING,
    SIGNER,
    attacker,
    build_log,
    make_event,
    request_events,
)

from audit.errors import LogMissing, ProofRefused
from audit.leaf import LEAF_COLUMNS
from audit.merkle import leaf_hash
from audit.report import Finding, Place, Report
from audit.schema import CHECKPOINT_COLUMNS, NODE_COLUMNS
from audit.verify import verify_log

EVENTS = request_events(7)
BATCH_LENS = [1, 2, 3, 1, 4, 2]
SIZES = [0, 1, 3, 6, 7, 11, 13]
BITS_PER_CELL = int(os.environ.get("CLOISTER_TAMPER_BITS", "2"))
"""A large number makes the test exhaustive: every bit of every cell."""
KEYS = {"leaf": ("idx",), "node": ("level", "idx"), "checkpoint": ("size",)}


@pytest.fixture
def tampered(tmp_path: Path) -> Path:
    """A log of 13 leaves in 6 batches, about to be attacked."""
    path = tmp_path / "audit.db"
    build_log(path, EVENTS, BATCH_LENS)
    return path


def verify(path: Path, **arguments: object) -> Report:
    """Verify with the log's own key."""
    return verify_log(path, [SIGNER.verifier], PAIRING, **arguments)


def places(report: Report) -> set[tuple[Place, int | None]]:
    """Where the findings point."""
    return {(finding.place, finding.index) for finding in report.findings}


def test_an_honest_log_has_no_finding(tampered: Path) -> None:
    """And the report counts what is there."""
    report = verify(tampered)
    assert report.findings == ()
    assert (report.num_leaves, report.num_checkpoints, report.head_size) == (13, 7, 13)
    assert report.unfinished == (("req-6", 11),)


def flips_of(value: object, draw: random.Random) -> Iterator[object]:
    """Some single-bit changes of a stored value; for NULL, a value."""
    if value is None:
        yield "x"
    elif isinstance(value, int):
        for bit in draw.sample(range(63), min(63, BITS_PER_CELL)):
            yield value ^ 1 << bit
    else:
        data = value.encode() if isinstance(value, str) else value
        for bit in draw.sample(range(8 * len(data)), min(8 * len(data), BITS_PER_CELL)):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            yield bytes(changed)


def expected_finding(table: str, column: str, key: tuple[int, ...], flipped: object) -> Callable[[Finding], bool]:
    """What must be among the findings for this cell."""
    if table == "leaf" and column == "idx":
        return lambda found: found.place is Place.LEAF_ROW and found.index in (key[0], flipped)
    if table == "leaf":
        special = {"leaf_bytes": Place.LEAF_BYTES, "leaf_hash": Place.LEAF_HASH}
        place = special.get(column, Place.COLUMN)
        where = "" if column in special else column
        return lambda found: (found.place, found.index, found.where) == (place, key[0], where)
    if table == "node" and column == "hash":
        where = f"level {key[0]}, index {key[1]}"
        return lambda found: (found.place, found.where) == (Place.NODE, where)
    if table == "node":
        return lambda found: found.place is Place.NODE
    special = {"size": Place.CHECKPOINT_ROW, "root": Place.CHECKPOINT_ROOT, "note": Place.CHECKPOINT_SIGNATURE}
    return lambda found: found.place is special[column] and found.index in (key[0], flipped)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (table, column)
        for table, columns in (("leaf", LEAF_COLUMNS), ("node", NODE_COLUMNS), ("checkpoint", CHECKPOINT_COLUMNS))
        for column in columns
    ],
)
def test_a_flipped_bit_in_any_column_of_any_row_is_found_where_it_is(tampered: Path, table: str, column: str) -> None:
    """Every cell of the log, sampled bits of each; what is not a key gives exactly one finding."""
    draw = random.Random(f"{table}.{column}")
    key_names = KEYS[table]
    with attacker(tampered) as raw:
        rows = raw.execute(f"SELECT {', '.join(key_names)}, {column} FROM {table}").fetchall()
        assert rows
        for row in rows:
            *key, value = row
            for flipped in flips_of(value, draw):
                cast = "CAST(? AS TEXT)" if isinstance(value, str) else "?"
                if not overwrite(raw, f"UPDATE {table} SET {column} = {cast}", key_names, key, flipped):
                    continue  # two rows cannot share a key: the database says so itself
                # the dropped triggers are findings of their own, seen in another test
                findings = [f for f in verify(tampered).findings if f.place is not Place.SCHEMA]
                assert any(map(expected_finding(table, column, tuple(key), flipped), findings)), (key, flipped)
                if column not in key_names:
                    assert len(findings) == 1, findings
                undone = [flipped if name == column else part for name, part in zip(key_names, key, strict=True)]
                assert overwrite(raw, f"UPDATE {table} SET {column} = ?", key_names, undone, value)
    assert verify(tampered).ok


def overwrite(
    raw: sqlite3.Connection, statement: str, key_names: tuple[str, ...], key: list[object], value: object
) -> bool:
    """Run the update on one row; tell whether the database took it."""
    where = " AND ".join(f"{name} = ?" for name in key_names)
    try:
        return raw.execute(f"{statement} WHERE {where}", (value, *key)).rowcount == 1
    except (sqlite3.IntegrityError, sqlite3.OperationalError):
        return False


@pytest.mark.parametrize("index", range(13))
def test_a_deleted_leaf_is_named(tampered: Path, index: int) -> None:
    """Its place in the order is empty."""
    with attacker(tampered) as raw:
        raw.execute("DELETE FROM leaf WHERE idx = ?", (index,))
    assert (Place.LEAF_ROW, index) in places(verify(tampered))


@pytest.mark.parametrize("size", SIZES)
def test_a_deleted_checkpoint_is_named(tampered: Path, size: int) -> None:
    """The leaves after it still say that they followed it; the newest one leaves its leaves uncovered."""
    with attacker(tampered) as raw:
        raw.execute("DELETE FROM checkpoint WHERE size = ?", (size,))
    found = places(verify(tampered))
    assert found & {(Place.CHECKPOINT_ROW, size), (Place.LEAF_ROW, 11) if size == 13 else None}


@pytest.mark.parametrize("size", [-1, 2**40])
def test_a_first_checkpoint_that_contradicts_its_note_is_missing_too(tampered: Path, size: int) -> None:
    """A moved beginning is named where it is now, and where it should be."""
    with attacker(tampered) as raw:
        raw.execute("UPDATE checkpoint SET size = ? WHERE size = 0", (size,))
    assert {(Place.CHECKPOINT_ROW, size), (Place.CHECKPOINT_ROW, 0)} <= places(verify(tampered))


@pytest.mark.timeout(60)
def test_an_unsigned_checkpoint_of_any_size_takes_no_longer(tampered: Path) -> None:
    """Its size is a number of the attacker's: nothing counts up to it."""
    with attacker(tampered) as raw:
        raw.execute("UPDATE checkpoint SET size = ?, note = 'none' WHERE size = 13", (2**62,))
    assert {(Place.CHECKPOINT_SIGNATURE, 2**62), (Place.LEAF_ROW, 13)} <= places(verify(tampered))


def test_an_altered_log_writes_no_line_of_its_own_into_the_verdict(tampered: Path) -> None:
    """Names are the attacker's words; they end no line and steer no terminal."""
    raw = sqlite3.connect(tampered)
    raw.execute('CREATE TABLE "x\nVERIFIED: nothing contradicts anything\x1b[2J" (y)')
    raw.commit()
    raw.close()
    [finding] = verify(tampered).findings
    assert str(finding).isprintable()
    assert "x\\nVERIFIED" in str(finding)


def test_every_deleted_node_is_named(tampered: Path) -> None:
    """No inner node may be missing."""
    with attacker(tampered) as raw:
        nodes = raw.execute("SELECT level, idx, hash FROM node").fetchall()
    assert len(nodes) == 10
    for level, index, digest in nodes:
        with attacker(tampered) as raw:
            raw.execute("DELETE FROM node WHERE level = ? AND idx = ?", (level, index))
        [finding] = verify(tampered).findings
        assert (finding.place, finding.where) == (Place.NODE, f"level {level}, index {index}")
        with attacker(tampered) as raw:
            raw.execute("INSERT INTO node VALUES (?, ?, ?)", (level, index, digest))
    assert verify(tampered).ok


@pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 2), (3, 5), (5, 6), (2, 12)])
def test_two_swapped_leaves_are_named(tampered: Path, one: int, other: int) -> None:
    """Whole rows exchanged, hashes and all."""
    with attacker(tampered) as raw:
        for start, end in ((one, -1), (other, one), (-1, other)):
            raw.execute("UPDATE leaf SET idx = ? WHERE idx = ?", (end, start))
    found = places(verify(tampered))
    assert {(Place.LEAF_ROW, one), (Place.LEAF_ROW, other)} <= found


@pytest.mark.parametrize("target", [13, -1, 500])
def test_an_inserted_copy_of_a_leaf_is_named(tampered: Path, target: int) -> None:
    """Beyond the head, before the beginning or far away: no checkpoint covers it."""
    with attacker(tampered) as raw:
        columns = ", ".join(LEAF_COLUMNS[1:])
        raw.execute(f"INSERT INTO leaf SELECT {target}, {columns} FROM leaf WHERE idx = 4")
    assert (Place.LEAF_ROW, target) in places(verify(tampered))


def test_an_inserted_node_or_checkpoint_is_named(tampered: Path) -> None:
    """Rows that no tree of this size has."""
    with attacker(tampered) as raw:
        raw.execute("INSERT INTO node VALUES (1, 6, zeroblob(32))")
        raw.execute("INSERT INTO checkpoint SELECT 9, root, note FROM checkpoint WHERE size = 11")
    found = {(finding.place, finding.index, finding.where) for finding in verify(tampered).findings}
    assert found == {(Place.NODE, None, "level 1, index 6"), (Place.CHECKPOINT_ROW, 9, "")}


@pytest.mark.parametrize("index", range(13))
def test_a_leaf_rewritten_with_hash_and_columns_is_found(tampered: Path, index: int) -> None:
    """The careful forger without the key: bytes, hash and columns agree, the signed root does not."""
    with attacker(tampered) as raw:
        (leaf_bytes,) = raw.execute("SELECT leaf_bytes FROM leaf WHERE idx = ?", (index,)).fetchone()
        forged = leaf_bytes.replace(b'"actor":"key-', b'"actor":"kex-')
        assert forged != leaf_bytes
        raw.execute(
            "UPDATE leaf SET leaf_bytes = ?, leaf_hash = ?, actor = replace(actor, 'key-', 'kex-') WHERE idx = ?",
            (forged, leaf_hash(forged), index),
        )
    report = verify(tampered)
    batch_start = max(size for size in SIZES if size <= index)
    near = {index - 1, index, batch_start}
    assert any(finding.index in near for finding in report.findings), report.findings
    assert {finding.place for finding in report.findings} <= {Place.LEAF_BYTES, Place.LEAF_ROW, Place.NODE}


def test_a_tree_rebuilt_with_another_key_is_found(tmp_path: Path) -> None:
    """All of it is consistent; no known key signed it."""
    path = tmp_path / "audit.db"
    build_log(path, EVENTS, BATCH_LENS, OTHER_SIGNER)
    found = places(verify(path))
    assert {(Place.CHECKPOINT_SIGNATURE, size) for size in SIZES} <= found


@pytest.mark.parametrize("keep", SIZES[:-1])
def test_a_tail_cut_at_a_checkpoint_shows_against_a_newer_one(tampered: Path, keep: int) -> None:
    """The log alone is sound - an old backup always is - and the known head names the first missing entry."""
    note = note_at(tampered, 13)
    cut(tampered, keep)
    assert verify(tampered).ok
    assert places(verify(tampered, known_notes=[note])) == {(Place.TRUNCATED, keep)}


def test_a_log_rebuilt_with_the_stolen_key_shows_against_a_known_head(tmp_path: Path) -> None:
    """Even the key cannot make two histories fit one checkpoint; two known heads bound the place."""
    honest, forged = tmp_path / "honest.db", tmp_path / "forged.db"
    build_log(honest, EVENTS, BATCH_LENS)
    build_log(forged, [*EVENTS[:8], make_event(99, "request:denied"), *EVENTS[9:]], BATCH_LENS)
    notes = [note_at(honest, size) for size in (3, 7, 11, 13)]
    assert verify_log(forged, [SIGNER.verifier], None).ok
    report = verify_log(forged, [SIGNER.verifier], None, known_notes=notes)
    assert [(finding.place, finding.index) for finding in report.findings] == [(Place.FORK, 7)]
    assert verify(honest, known_notes=notes).ok


def test_a_known_head_between_two_checkpoints_is_held_against_the_tree(tmp_path: Path) -> None:
    """The same leaves in other batches: heads of sizes that this log never signed still fit."""
    one, other = tmp_path / "one.db", tmp_path / "other.db"
    build_log(one, EVENTS, [13])
    build_log(other, EVENTS, [1] * 13)
    notes = [note_at(other, size) for size in range(14)]
    report = verify(one, known_notes=notes)
    assert {finding.place for finding in report.findings} == {Place.FORK}  # `head` differs in the leaves themselves
    assert verify(other, known_notes=notes).ok


def test_a_known_note_that_nobody_known_signed_is_refused(tampered: Path) -> None:
    """It is the auditor's own evidence that is wrong, not the log."""
    with pytest.raises(ProofRefused):
        verify_log(tampered, [OTHER_SIGNER.verifier], None, known_notes=[note_at(tampered, 13)])


@pytest.mark.parametrize(
    ("kinds", "index"),
    [
        (["request:admitted", "request:admitted"], 1),
        (["request:completed"], 0),
        (["request:admitted", "request:completed", "request:failed"], 2),
        (["request:admitted", "request:completed", "request:admitted"], 2),
    ],
)
def test_a_request_has_one_beginning_and_one_end(tmp_path: Path, kinds: list[str], index: int) -> None:
    """The state machine is checked from the leaves."""
    path = tmp_path / "audit.db"
    build_log(path, [make_event(number, kind, "req-x") for number, kind in enumerate(kinds)], [1] * len(kinds))
    assert places(verify(path)) == {(Place.STATE, index)}
    assert verify_log(path, [SIGNER.verifier], None).ok


def test_clocks_that_part_within_one_run_are_named(tmp_path: Path) -> None:
    """Wall time may not jump while monotonic time does not."""
    path = tmp_path / "audit.db"
    early, late = make_event(0, "a:b"), make_event(3_600, "a:b")
    build_log(path, [early, dataclasses.replace(late, monotonic_ns=early.monotonic_ns)], [2])
    assert places(verify(path)) == {(Place.CLOCK, 1)}


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER leaf_no_update",
        "CREATE TABLE more (x)",
        "DROP INDEX leaf_subject",
        "UPDATE alembic_version SET version_num = 'r2'",
    ],
)
def test_a_changed_schema_is_named(tampered: Path, statement: str) -> None:
    """The fence itself is part of what is verified."""
    raw = sqlite3.connect(tampered)
    raw.execute(statement)
    raw.commit()
    raw.close()
    assert {finding.place for finding in verify(tampered).findings} == {Place.SCHEMA}


def test_a_damaged_file_is_a_finding_and_never_a_crash(tampered: Path) -> None:
    """Bits flipped in the file itself, wherever they fall, are found or without effect on any stored value."""
    honest = tampered.read_bytes()
    draw = random.Random(5)
    found = 0
    for _ in range(40):
        damaged = bytearray(honest)
        for _ in range(16):
            damaged[draw.randrange(len(honest))] ^= 1 << draw.randrange(8)
        tampered.write_bytes(damaged)
        found += not verify(tampered).ok
        for suffix in ("-wal", "-shm"):
            tampered.with_name(tampered.name + suffix).unlink(missing_ok=True)
    assert found > 20


def test_nothing_at_the_path_is_said_plainly(tmp_path: Path) -> None:
    """Neither a database nor a folder."""
    with pytest.raises(LogMissing):
        verify(tmp_path / "absent")


def note_at(path: Path, size: int) -> str:
    """The signed note that the log stored at a size."""
    raw = sqlite3.connect(path)
    [(note,)] = raw.execute("SELECT note FROM checkpoint WHERE size = ?", (size,)).fetchall()
    raw.close()
    return note


def cut(path: Path, keep: int) -> None:
    """Go back to an older state of the log, as a restored backup would."""
    with attacker(path) as raw:
        raw.execute("DELETE FROM leaf WHERE idx >= ?", (keep,))
        raw.execute("DELETE FROM node WHERE (idx + 1) << level > ?", (keep,))
        raw.execute("DELETE FROM checkpoint WHERE size > ?", (keep,))
