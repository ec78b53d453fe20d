"""What is stored beside the leaves - policy ids, sealed contents, floors - held against what the leaves say.

Each leaf, once its bytes are believed, says exactly which rows stand beside it, and of each content the digest.  A
floor counts only if a believed leaf recorded it; contents that are gone are missed unless such a floor explains it.

Promise: each row is read once, in the order of its index, and few are held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from sqlalchemy import Connection, Table, select

from audit.beside import describe, described_contents, described_floor, policy_ids
from audit.event import Floor, Pruned, SealedContent
from audit.leaf import Leaf
from audit.report import FindingList, Place, shown
from audit.schema import content_table, leaf_policy_table, pruning_table
from audit.store import Floors

_ROWS_PER_FETCH = 256
_CONTENTS_PER_FETCH = 8
"""Each may be of 64 MiB."""
Row: TypeAlias = "Sequence[object]"


class BesideRows:
    """Asked about every entry, in order."""

    def __init__(self, connection: Connection, floors: Floors, findings: FindingList) -> None:
        self._findings = findings
        self._floors = floors
        self._policies = _RowsByIndex(connection, leaf_policy_table, floors.leaf, findings)
        self._contents = _RowsByIndex(connection, content_table, floors.leaf, findings)
        self._pruning: dict[object, list[Row]] = {}
        """Few: one for each act of pruning."""
        for row in connection.execute(select(pruning_table)):
            self._pruning.setdefault(row.idx, []).append(row)
        self._unexplained = _to_explain(floors)

    def check(self, index: int, leaf: Leaf | None) -> None:
        """Compare what stands beside one entry; of an entry that is not believed nothing can be said."""
        policies, contents = self._policies.take(index), self._contents.take(index)
        acts = self._pruning.pop(index, [])
        if leaf is None:
            return
        wanted = policy_ids(leaf.event)
        if tuple(sorted(str(row[1]) for row in policies)) != wanted:
            self._findings.add(Place.BESIDE, index, "the policy ids beside it are not the leaf's", where="leaf_policy")
        self._check_contents(index, leaf, contents)
        floor = described_floor(leaf.event)
        wanted_acts = [] if floor is None else [(floor.what.value, floor.minimum_index, index)]
        if [tuple(act) for act in acts] == wanted_acts:
            self._unexplained -= {floor}
        else:
            self._findings.add(Place.BESIDE, index, "the floor beside it is not the leaf's", where="pruning")

    def finish(self, num_leaves: int) -> None:
        """Name what belongs to no entry, and floors that no leaf recorded."""
        for index in (*self._policies.rest(), *self._contents.rest()):
            self._findings.add(Place.BESIDE, index, "this belongs to no entry")
        for recorder in self._pruning:
            if not (
                isinstance(recorder, int) and recorder < self._floors.leaf
            ):  # recorded by an entry that is gone itself
                self._findings.add(
                    Place.BESIDE, None, f"a floor says that entry {shown(recorder)} recorded it", where="pruning"
                )
        for floor in self._unexplained:
            what = f"no entry of {num_leaves} recorded the {floor.what.value} floor {floor.minimum_index}"
            self._findings.add(Place.BESIDE, None, what, where="pruning")

    def _check_contents(self, index: int, leaf: Leaf, rows: Sequence[Row]) -> None:
        stored = {str(row[1]): row for row in rows}
        wanted = described_contents(leaf.event)
        for phase in sorted(stored.keys() | wanted.keys()):
            row, said = stored.get(phase), wanted.get(phase)
            if row is None:
                if index >= self._floors.content:
                    self._findings.add(Place.CONTENT, index, "the sealed content is missing", where=phase)
            elif said is None:
                self._findings.add(Place.CONTENT, index, "the leaf knows of no such content", where=phase)
            elif not _is_as_described(row, said):
                self._findings.add(Place.CONTENT, index, "the sealed content is not what the leaf says", where=phase)


def _to_explain(floors: Floors) -> set[Floor]:
    """Each floor by its own kind: an act that let contents go explains no missing entry."""
    wanted: set[Floor] = set()
    if floors.leaf:
        wanted.add(Floor(Pruned.LEAF, floors.leaf))
    if floors.content > floors.leaf:
        wanted.add(Floor(Pruned.CONTENT, floors.content))
    return wanted


def _is_as_described(row: Row, said: object) -> bool:
    _, phase, key_id, nonce, ciphertext = row
    if not isinstance(key_id, str) or not isinstance(nonce, bytes) or not isinstance(ciphertext, bytes):
        return False
    return describe(SealedContent(str(phase), key_id, nonce, ciphertext)) == said


class _RowsByIndex:
    """One table's rows, smallest index first, taken entry by entry."""

    def __init__(self, connection: Connection, table: Table, floor: int, findings: FindingList) -> None:
        self._findings = findings
        self._rows = _read(connection, table, floor, findings)
        self._next = next(self._rows, None)

    def take(self, index: int) -> list[Row]:
        """Take the rows of one entry; whatever stands before it belongs to none."""
        taken: list[Row] = []
        while self._next is not None and self._next[0] <= index:
            if self._next[0] == index:
                taken.append(self._next[1])
            else:
                self._findings.add(Place.BESIDE, self._next[0], "this belongs to no entry")
            self._next = next(self._rows, None)
        return taken

    def rest(self) -> Iterator[int]:
        """Take all that is left; yield each row's index."""
        while self._next is not None:
            yield self._next[0]
            self._next = next(self._rows, None)


def _read(connection: Connection, table: Table, floor: int, findings: FindingList) -> Iterator[tuple[int, Row]]:
    num_rows = _CONTENTS_PER_FETCH if table is content_table else _ROWS_PER_FETCH
    query = select(table).order_by(table.c.idx).execution_options(yield_per=num_rows)
    if floor:
        query = query.where(table.c.idx >= floor)
    for row in connection.execute(query):
        if isinstance(row[0], int):
            yield row[0], tuple(row)
        else:
            findings.add(Place.BESIDE, None, "no number is stored as its index", where=f"{table.name} {shown(row[0])}")


def believed_floors(connection: Connection, findings: FindingList) -> Floors:
    """Return the floors as they are stored, to be confirmed by the leaves that recorded them."""
    content = leaf = 0
    for what, minimum_index, index in connection.execute(select(pruning_table)):
        if not isinstance(minimum_index, int) or not isinstance(index, int) or what not in _KINDS:
            findings.add(Place.BESIDE, None, f"{shown((what, minimum_index, index))} is no floor", where="pruning")
            continue
        floor = Floor(Pruned(what), minimum_index)
        content = max(content, floor.minimum_index)
        leaf = max(leaf, floor.minimum_index) if floor.what is Pruned.LEAF else leaf
    return Floors(content, leaf)


_KINDS = frozenset(what.value for what in Pruned)
