"""The leaves as they are stored, in the order of their index; nothing about them is believed yet.

Promise: each row is read once, and only as many are held as one batch has.  A gap, a repetition or a row out of place
is a finding; the rows that remain are in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from audit.leaf import LEAF_COLUMNS
from audit.merkle import leaf_hash
from audit.report import FindingList, Place, shown
from audit.schema import leaf_table

_ROWS_PER_FETCH = 1_024
_MAX_NAMED_GAP = 16


@dataclass(frozen=True, slots=True)
class StoredLeaf:
    """One row with both accounts of its hash; what is stored as neither bytes nor a hash counts as no bytes at all.

    No leaf and no hash is empty, so the two accounts of such a row disagree, as those of an altered one do.
    """

    index: int
    leaf_bytes: bytes
    stored_hash: bytes
    computed_hash: bytes
    columns: dict[str, object]
    """Every column as it is stored, of whatever kind."""


class LeafRows:
    """Every stored leaf from a floor on, smallest index first, taken up to a bound."""

    def __init__(self, connection: Connection, findings: FindingList, floor: int) -> None:
        self._rows = _read(connection, findings, floor)
        self._next: StoredLeaf | None = next(self._rows, None)

    def take_below(self, bound: int) -> list[StoredLeaf]:
        """Take every row with an index below `bound`."""
        taken: list[StoredLeaf] = []
        while self._next is not None and self._next.index < bound:
            taken.append(self._next)
            self._next = next(self._rows, None)
        return taken

    def rest(self) -> Iterator[StoredLeaf]:
        """Take all that is left."""
        while self._next is not None:
            yield self._next
            self._next = next(self._rows, None)


def keep_in_order(stored: Sequence[StoredLeaf], start: int, end: int, findings: FindingList) -> list[StoredLeaf]:
    """Return the rows that stand in order within `[start, end)`; name each that does not, and each index without."""
    rows: list[StoredLeaf] = []
    expected = start
    for row in stored:
        if row.index < expected:
            findings.add(Place.LEAF_ROW, row.index, "this index is stored out of place or twice")
            continue
        _report_gap(expected, row.index, findings)
        rows.append(row)
        expected = row.index + 1
    _report_gap(expected, end, findings)
    return rows


def _report_gap(first: int, end: int, findings: FindingList) -> None:
    if end - first > _MAX_NAMED_GAP:
        findings.add(Place.LEAF_ROW, first, f"this entry and all up to {end - 1} are missing")
        return
    for index in range(first, end):
        findings.add(Place.LEAF_ROW, index, "this entry is missing")


def _read(connection: Connection, findings: FindingList, floor: int) -> Iterator[StoredLeaf]:
    query = select(leaf_table).order_by(leaf_table.c.idx).execution_options(yield_per=_ROWS_PER_FETCH)
    if floor:
        query = query.where(leaf_table.c.idx >= floor)
    for row in connection.execute(query):
        columns: dict[str, object] = dict(zip(LEAF_COLUMNS, row, strict=True))
        index = columns["idx"]
        if not isinstance(index, int):
            findings.add(Place.LEAF_ROW, None, "no number is stored as its index", where=shown(index))
            continue
        leaf_bytes = _bytes_of(columns["leaf_bytes"])
        yield StoredLeaf(index, leaf_bytes, _bytes_of(columns["leaf_hash"]), leaf_hash(leaf_bytes), columns)


def _bytes_of(stored: object) -> bytes:
    return stored if isinstance(stored, bytes) else b""
