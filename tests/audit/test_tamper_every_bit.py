"""Every bit of every cell of a 500-leaf log, flipped: all of it is found, where it is.

One pass flips one bit in each row of a column and demands exactly one finding per row, each at its own place: that a
change is found beside hundreds of others is no less than that it is found alone, which a sample shows as well.  The
suite makes one pass per column; the long lane (`make tamper`) makes them all and prints the table.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from audit_log_builder import PAIRING, SIGNER, attacker
from tamper_table import TamperRow, note
from tampered_log import BATCH_LENS, FLOOR_INDEX, OURS, build, findings

from audit.leaf import LEAF_COLUMNS
from audit.report import Place
from audit.schema import metadata
from audit.verify import verify_log

INTEGER_BITS = 64
NUM_ALONE = 40
_ROWS_FOUND_TWICE = 240
"""In one pass, so that a report has room for all of it."""
Cell = bytes | str | int | None
Key = tuple[int | str, ...]
Rows = Sequence[tuple[Key, Cell]]


@dataclass(frozen=True)
class Column:
    """One column, and where a change of one of its cells must be found."""

    table: str
    name: str
    key: tuple[str, ...]
    kind: type

    @property
    def is_key(self) -> bool:
        """A changed key is another row: it may be found where it was and where it is."""
        return self.name in self.key


COLUMNS = [
    Column(table.name, column.name, tuple(part.name for part in table.primary_key.columns), column.type.python_type)
    for table in metadata.sorted_tables
    for column in table.columns
]
IDS = [f"{column.table}.{column.name}" for column in COLUMNS]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log, whole."""
    path = tmp_path_factory.mktemp("honest") / "audit.db"
    build(path)
    return path


@pytest.fixture
def log(tmp_path: Path, honest: Path) -> Path:
    """A copy to attack."""
    path = tmp_path / "audit.db"
    path.write_bytes(honest.read_bytes())
    path.chmod(0o600)
    return path


PLACES = {
    ("leaf", "idx"): (Place.LEAF_ROW, ""),
    ("leaf", "leaf_bytes"): (Place.LEAF_BYTES, ""),
    ("leaf", "leaf_hash"): (Place.LEAF_HASH, ""),
    **{("leaf", name): (Place.COLUMN, name) for name in LEAF_COLUMNS if name not in ("idx", "leaf_bytes", "leaf_hash")},
    ("checkpoint", "size"): (Place.CHECKPOINT_ROW, ""),
    ("checkpoint", "root"): (Place.CHECKPOINT_ROOT, ""),
    ("checkpoint", "note"): (Place.CHECKPOINT_SIGNATURE, ""),
    **{("leaf_policy", name): (Place.BESIDE, "leaf_policy") for name in ("idx", "policy_id")},
}


def expected(column: Column, key: Key, flipped: Cell) -> set[tuple[Place, int | None, str]]:
    """The findings of which one must be there for this cell; nobody said it for a column that is new."""
    if column.table == "pruning":
        return {(Place.BESIDE, FLOOR_INDEX, "pruning"), (Place.BESIDE, None, "pruning")}
    index = int(key[0])
    if column.table == "node":
        return {(Place.NODE, int(key[1]) << index, f"level {index}, index {key[1]}")}
    if column.table == "content":
        return {(Place.CONTENT, index, str(key[1]))}
    place, where = PLACES[column.table, column.name]
    if (column.table, column.name) == ("checkpoint", "size"):
        assert isinstance(flipped, int)
        index = flipped
    return {(place, index, where)}


def flip(value: Cell, bit: int) -> Cell:
    """Return the value with one bit changed, as what is stored; None where it has no such bit."""
    if value is None:
        return "x" if bit == 0 else None
    if isinstance(value, int):
        return None if bit >= INTEGER_BITS else value ^ 1 << bit if bit < INTEGER_BITS - 1 else value - (1 << bit)
    data = bytearray(value.encode() if isinstance(value, str) else value)
    if bit >= 8 * len(data):
        return None
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


class Attack:
    """One open log, its columns changed and put back pass by pass."""

    def __init__(self, path: Path, raw: sqlite3.Connection, column: Column) -> None:
        self._path = path
        self._raw = raw
        self._column = column
        names = ", ".join((*column.key, column.name))
        rows = raw.execute(f"SELECT {names} FROM {column.table} ORDER BY {', '.join(column.key)}").fetchall()
        self.rows: Rows = [(row[:-1], row[-1]) for row in rows]
        self._keys = {key for key, _ in self.rows}
        self.num_refused = 0

    @property
    def num_bits(self) -> int:
        """Of the longest cell."""
        return max(INTEGER_BITS if isinstance(v, int) else 8 * len(v or "") or 1 for _, v in self.rows)

    def one_pass(self, rows: Rows, bit: int) -> int:
        """Flip one bit in each of these rows at once; every one is found at its place.  Return how many there were."""
        changes = [(key, value, flipped) for key, value in rows if (flipped := flip(value, bit)) is not None]
        changes = [change for change in changes if not self._is_refused(*change)]
        if not changes:
            return 0
        self._write((self._stored(value, flipped), *key) for key, value, flipped in changes)
        found = findings(self._path)
        for key, _, flipped in changes:
            assert expected(self._column, key, flipped) & set(found), (self._column, key, bit)
        if not self._column.is_key and self._column.table != "pruning":  # a floor that goes uncovers what it excused
            other = set(found) - {
                place for key, _, flipped in changes for place in expected(self._column, key, flipped)
            }
            assert other <= {(Place.BESIDE, None, "pruning")}, other  # where the leaf is altered that recorded it
            assert len(found) == len(changes) + len(other), f"{len(changes)} cells were changed, {len(found)} findings"
        self._write((value, *self._key_now(key, flipped)) for key, value, flipped in changes)
        return len(changes)

    def _is_refused(self, key: Key, _: Cell, flipped: Cell) -> bool:
        refused = self._column.is_key and self._key_now(key, flipped) in self._keys
        self.num_refused += refused
        return refused

    def _key_now(self, key: Key, flipped: Cell) -> tuple[Cell, ...]:
        return tuple(
            flipped if name == self._column.name else part for name, part in zip(self._column.key, key, strict=True)
        )

    def _stored(self, value: Cell, flipped: Cell) -> Cell:
        return (
            flipped.decode(errors="surrogateescape")
            if isinstance(value, str) and isinstance(flipped, bytes)
            else flipped
        )

    def _write(self, rows: Iterable[tuple[Cell, ...]]) -> None:
        where = " AND ".join(f"{name} = {_placeholder(self._column.table, name)}" for name in self._column.key)
        placeholder = _placeholder(self._column.table, self._column.name)
        statement = f"UPDATE {self._column.table} SET {self._column.name} = {placeholder} WHERE {where}"
        self._raw.execute("BEGIN")
        for value, *key in rows:
            encoded = [
                part.encode(errors="surrogateescape") if isinstance(part, str) else part for part in (value, *key)
            ]
            assert self._raw.execute(statement, encoded).rowcount == 1
        self._raw.execute("COMMIT")


def _placeholder(table: str, name: str) -> str:
    """Text goes in as bytes, so that it need not be UTF-8."""
    return "CAST(? AS TEXT)" if metadata.tables[table].columns[name].type.python_type is str else "?"


def independent(column: Column, rows: Rows) -> Iterator[Rows]:
    """Part the rows into groups in which no change makes another one unfindable.

    A batch that lacks one leaf shows nothing of a second one, and a missing checkpoint makes one batch of two.
    """
    if (column.table, column.name) == ("checkpoint", "size"):
        yield from (rows[0::2], rows[1::2])
        return
    if column.is_key and column.table != "leaf":  # each is found twice, where it was and where it is
        yield from (rows[start : start + _ROWS_FOUND_TWICE] for start in range(0, len(rows), _ROWS_FOUND_TWICE))
        return
    if (column.table, column.name) != ("leaf", "idx"):
        yield rows
        return
    batches, start = [], 0
    for batch_len in BATCH_LENS:
        batches.append(range(start, start + batch_len))
        start += batch_len
    for parity in (0, 1):
        for place in range(8):
            group = [batch[place] for batch in batches[parity::2] if place < len(batch)]
            yield [rows[index] for index in group]


@contextmanager
def attacked(log: Path, column: Column) -> Iterator[Attack]:
    """Attack one column; in the end the log is as it was."""
    before = findings(log)
    assert before == []
    with attacker(log) as raw:
        yield Attack(log, raw, column)
    assert verify_log(log, [SIGNER.verifier], PAIRING).ok, "the attack was not undone, so it proves nothing"


@pytest.mark.parametrize("column", COLUMNS, ids=IDS)
def test_one_bit_of_every_row_is_found_in_every_row(log: Path, column: Column) -> None:
    """One pass per column, and some cells alone."""
    draw = random.Random(column.name)
    with attacked(log, column) as attack:
        assert attack.rows
        bit = draw.randrange(min(INTEGER_BITS, attack.num_bits))
        assert sum(attack.one_pass(group, bit) for group in independent(column, attack.rows))
        for row in draw.sample(attack.rows, min(2, len(attack.rows))):
            attack.one_pass([row], bit)


@pytest.mark.slow
@pytest.mark.parametrize("column", COLUMNS, ids=IDS)
def test_every_bit_of_every_row_is_found(log: Path, column: Column) -> None:
    """All bits of all cells."""
    with attacked(log, column) as attack:
        num_done = 0
        for bit in range(attack.num_bits):
            num_done += sum(attack.one_pass(group, bit) for group in independent(column, attack.rows))
    note(TamperRow(f"bit of {column.table}.{column.name}", OURS, num_done, attack.num_refused, num_done))


@pytest.mark.slow
@pytest.mark.parametrize("column", COLUMNS, ids=IDS)
def test_bits_flipped_alone_are_found_alone(log: Path, column: Column) -> None:
    """One cell at a time, drawn from all."""
    draw = random.Random(column.name)
    with attacked(log, column) as attack:
        num_done = 0
        for row in draw.choices(attack.rows, k=NUM_ALONE):
            bits = INTEGER_BITS if isinstance(row[1], int) else 8 * len(row[1] or "x")
            num_done += attack.one_pass([row], draw.randrange(bits) if row[1] is not None else 0)
        assert num_done or attack.num_refused
    note(TamperRow("one bit, alone", OURS, num_done, attack.num_refused, num_done))
