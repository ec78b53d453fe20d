"""Verify the database form of a log.

The walk goes checkpoint by checkpoint, as the log was written.  For the leaves between two checkpoints:

1. the checkpoint's signature gives the root to believe; 2. no leaf may be missing, repeated or beyond the head;
3. the tree grows by the leaves' hashes until its root is the signed one - where a leaf's bytes and its stored hash
disagree, the signed root says which of them was altered; 4. believed bytes give every column, the checkpoint's
predecessor, the clocks and the subject's state; 5. every inner node that was completed is compared with the stored one.

When no choice of hashes gives the signed root, leaves were rewritten together with their hashes; the stored nodes tell
where, and the walk goes on from the stored right edge if that one has the signed root.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import cast

from sqlalchemy import Connection, func, or_, select
from sqlalchemy.exc import DatabaseError, NoResultFound

from audit.checkpoint import Checkpoint, LogVerifier, open_checkpoint, split_note
from audit.errors import AuditCorrupt, ProofRefused, SettingRefused
from audit.known_heads import KnownHeads
from audit.leaf import decode_leaf
from audit.leaf_checks import LeafChecks
from audit.merkle import EMPTY_EDGE, Node, RightEdge, leaf_hash, read_edge
from audit.pairing import Pairing
from audit.report import FindingList, Place, Report
from audit.schema import LEAF_COLUMNS, SCHEMA_REVISION, checkpoint_table, leaf_table, node_table
from audit.store import NodeLookup, expected_schema, open_engine, stored_schema

_MAX_DISAGREEMENTS = 10
_NODES_PER_QUERY = 4_096
_ROWS_PER_FETCH = 1_024
_MAX_NAMED_GAP = 16


def verify_store(
    path: Path,
    verifiers: Sequence[LogVerifier],
    pairing: Pairing | None,
    *,
    known_notes: Sequence[str],
    clock_limit_us: int,
) -> Report:
    """Return every contradiction in a log's database; see `verify.verify_log`."""
    findings = FindingList()
    known = KnownHeads(known_notes, verifiers, findings)
    checks = LeafChecks(pairing, clock_limit_us, findings)
    walk = _Walk(verifiers, findings, known, checks)
    try:
        engine = open_engine(path, read_only=True, owner_only=False)
        try:
            with engine.begin() as connection:
                _read_any_text(connection)
                walk.run(connection)
        finally:
            engine.dispose()
    except (AuditCorrupt, SettingRefused) as error:
        findings.add(Place.DATABASE, None, str(error))
    except UnicodeDecodeError:  # SQLite quotes the damaged schema, and Python cannot read the quotation
        findings.add(Place.DATABASE, None, "the database cannot be read: what names its tables is not text")
    except DatabaseError as error:
        findings.add(Place.DATABASE, None, f"the database cannot be read: {error.orig}")
    return Report(
        source=str(path),
        num_leaves=walk.num_leaves,
        num_checkpoints=walk.num_checkpoints,
        head_size=None if walk.head is None else walk.head.size,
        head_root=None if walk.head is None else walk.head.root.hex(),
        findings=tuple(findings.findings),
        findings_left_out=findings.left_out,
        unfinished=checks.unfinished,
        notes=tuple(checks.notes),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """A stored leaf."""

    index: int
    leaf_bytes: bytes
    stored_hash: bytes
    computed_hash: bytes
    columns: dict[str, object]


class _Walk:
    def __init__(
        self, verifiers: Sequence[LogVerifier], findings: FindingList, known: KnownHeads, checks: LeafChecks
    ) -> None:
        self._verifiers = verifiers
        self._findings = findings
        self._known = known
        self._checks = checks
        self._edge: RightEdge | None = EMPTY_EDGE
        self._expected_nodes: list[Node] = []
        self.num_leaves = 0
        self.num_checkpoints = 0
        self.head: Checkpoint | None = None

    def run(self, connection: Connection) -> None:
        """Check the file, then the log, then what is left over."""
        self._check_database(connection)
        self._known.compare(0, EMPTY_EDGE.root())
        rows = _Peekable(_stored_leaves(connection))
        size = 0
        for stored_size, root, note in _stored_checkpoints(connection):
            self.num_checkpoints += 1
            usable, signed = self._check_checkpoint(stored_size, root, note)
            if not usable:
                continue
            if self.num_checkpoints == 1 and stored_size != 0:
                self._findings.add(Place.CHECKPOINT_ROW, 0, "this checkpoint is missing")
            self._check_segment(connection, size, stored_size, signed, rows.take_below(stored_size))
            size = stored_size
            if signed is not None:
                self.head = signed
        for row in rows.rest():
            self._findings.add(Place.LEAF_ROW, row.index, "no signed checkpoint covers this entry")
        if self.num_checkpoints == 0:
            self._findings.add(Place.CHECKPOINT_ROW, 0, "no checkpoint is stored; even an empty log has one")
        self._compare_nodes(connection)
        self._check_surplus_nodes(connection, size)
        self._known.finish(self.num_leaves)

    def _check_database(self, connection: Connection) -> None:
        for (message,) in connection.exec_driver_sql("PRAGMA integrity_check"):
            if message != "ok":
                self._findings.add(Place.DATABASE, None, message, where=message)
        expected, stored = expected_schema(), stored_schema(connection)
        for kind, name in sorted(expected.keys() | stored.keys()):
            if expected.get((kind, name)) != stored.get((kind, name)):
                what = "is missing" if (kind, name) not in stored else "is not as the migrations made it"
                self._findings.add(Place.SCHEMA, None, f"the {kind} {name} {what}", where=name)
        revisions = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
        if revisions != [SCHEMA_REVISION]:
            self._findings.add(Place.SCHEMA, None, f"the revision is {revisions}", where="alembic_version")

    def _check_checkpoint(self, size: int, root: bytes, note: str) -> tuple[bool, Checkpoint | None]:
        """Return whether the row marks the end of a batch, and the checkpoint if its signature is good."""
        try:
            signed = open_checkpoint(note, self._verifiers)
            num_unknown = self._count_unknown(note)
        except ProofRefused as error:
            self._findings.add(Place.CHECKPOINT_SIGNATURE, size, error.what)
            return size >= 0, None
        if signed.size != size:
            self._findings.add(Place.CHECKPOINT_ROW, size, f"its note is of size {signed.size}")
            return False, None
        if signed.root != root:
            self._findings.add(Place.CHECKPOINT_ROOT, size, "the stored root is not the signed one")
        if num_unknown:
            self._checks.notes.append(f"checkpoint {size}: {num_unknown} signatures by keys that are not known here")
        return True, signed

    def _count_unknown(self, note: str) -> int:
        known = {(verifier.name, verifier.key_id) for verifier in self._verifiers}
        return sum((name, key_id) not in known for name, key_id, _ in split_note(note)[1])

    def _check_segment(
        self, connection: Connection, start: int, end: int, signed: Checkpoint | None, stored: list[_Row]
    ) -> None:
        """Steps 2 to 5 for the leaves `[start, end)`."""
        self.num_leaves += len(stored)
        rows = self._check_continuity(start, end, stored)
        altered: set[int] = set()
        chosen = self._choose_hashes(rows, signed, altered) if len(rows) == end - start else None
        if self._edge is not None and chosen is not None:
            self._compare_known_heads(self._edge, start, end, chosen)
            self._edge, completed = self._edge.append(chosen)
            self._expected_nodes += completed
            if len(self._expected_nodes) >= _NODES_PER_QUERY:
                self._compare_nodes(connection)
        else:
            self._locate_rewritten(connection, start, end, rows)
            self._edge = self._stored_edge(connection, end, signed)
            if self._edge is not None:
                self._known.compare(end, self._edge.root())
            self._known.pass_over(end)
        for row in rows:
            self._check_leaf(row, start, end, believed=row.index not in altered)

    def _check_continuity(self, start: int, end: int, stored: list[_Row]) -> list[_Row]:
        rows: list[_Row] = []
        expected = start
        for row in stored:
            if row.index < expected:
                self._findings.add(Place.LEAF_ROW, row.index, "this index is stored out of place or twice")
                continue
            self._report_gap(expected, row.index)
            rows.append(row)
            expected = row.index + 1
        self._report_gap(expected, end)
        return rows

    def _report_gap(self, first: int, end: int) -> None:
        if end - first > _MAX_NAMED_GAP:
            self._findings.add(Place.LEAF_ROW, first, f"this entry and all up to {end - 1} are missing")
            return
        for index in range(first, end):
            self._findings.add(Place.LEAF_ROW, index, "this entry is missing")

    def _choose_hashes(self, rows: list[_Row], signed: Checkpoint | None, altered: set[int]) -> list[bytes] | None:
        """Return the leaf hashes that give the signed root; name what was altered; None if no choice gives it."""
        if self._edge is None:
            return None
        doubtful = [position for position, row in enumerate(rows) if row.computed_hash != row.stored_hash]
        if signed is None:  # nothing to believe in here: the next good checkpoint will tell
            for position in doubtful:
                altered.add(rows[position].index)
                self._findings.add(Place.LEAF_BYTES, rows[position].index, "the bytes and the stored hash disagree")
            return [row.stored_hash for row in rows]
        all_or_none = [(True,) * len(doubtful), (False,) * len(doubtful)]
        many = len(doubtful) > _MAX_DISAGREEMENTS  # too many to try: one side is believed as a whole
        for bytes_were_altered in all_or_none if many else product((True, False), repeat=len(doubtful)):
            hashes = [row.computed_hash for row in rows]
            for position, is_altered in zip(doubtful, bytes_were_altered, strict=True):
                hashes[position] = rows[position].stored_hash if is_altered else rows[position].computed_hash
            if self._edge.append(hashes)[0].root() == signed.root:
                for position, is_altered in zip(doubtful, bytes_were_altered, strict=True):
                    self._name_altered(rows[position].index, altered, is_altered=is_altered)
                return hashes
        return None

    def _name_altered(self, index: int, altered: set[int], *, is_altered: bool) -> None:
        if is_altered:
            altered.add(index)
            self._findings.add(Place.LEAF_BYTES, index, "the bytes are not those that were signed")
        else:
            self._findings.add(Place.LEAF_HASH, index, "the stored hash is not that of the signed bytes")

    def _compare_known_heads(self, edge: RightEdge, start: int, end: int, hashes: Sequence[bytes]) -> None:
        while (size := self._known.next_size()) is not None and size <= end:
            self._known.compare(size, edge.append(hashes[: size - start])[0].root())

    def _locate_rewritten(self, connection: Connection, start: int, end: int, rows: list[_Row]) -> None:
        """Say what can be said about leaves that do not lead to the signed root."""
        num_before = len(self._findings.findings)
        for row in rows:
            if row.computed_hash != row.stored_hash:
                self._findings.add(Place.LEAF_BYTES, row.index, "the bytes and the stored hash disagree")
        hashes = {row.index: row.computed_hash for row in rows}
        lookup = NodeLookup(connection)
        for left in range(start - start % 2, end, 2):
            pair = [hashes.get(left) or _or_none(lookup, 0, left), hashes.get(left + 1)]
            parent = _or_none(lookup, 1, left // 2)
            if None in pair or parent is None:
                continue
            completed = EMPTY_EDGE.append([digest for digest in pair if digest is not None])[1]
            if completed[0].digest != parent:
                which = "it or the next" if left >= start else "the next"
                self._findings.add(Place.LEAF_BYTES, max(left, start), f"{which} was rewritten together with its hash")
        if len(self._findings.findings) == num_before and end > start:
            self._findings.add(Place.LEAF_ROW, start, f"entries {start} to {end - 1} do not lead to the signed root")

    def _stored_edge(self, connection: Connection, size: int, signed: Checkpoint | None) -> RightEdge | None:
        if signed is None:
            return None
        try:
            edge = read_edge(NodeLookup(connection), size)
        except NoResultFound:
            return None
        return edge if edge.root() == signed.root else None

    def _check_leaf(self, row: _Row, start: int, end: int, *, believed: bool) -> None:
        subject = row.columns["subject"]
        if not believed:
            self._checks.skip(str(subject))
            return
        try:
            leaf = decode_leaf(row.leaf_bytes)
        except ProofRefused as error:
            self._findings.add(Place.LEAF_BYTES, row.index, error.what)
            self._checks.skip(str(subject))
            return
        for name, value in leaf.columns().items():
            found = row.columns[name]
            if (found != value or type(found) is not type(value)) and name != "idx":  # a moved leaf is a finding below
                self._findings.add(Place.COLUMN, row.index, f"{found!r} is stored, the leaf says {value!r}", where=name)
        if start < leaf.head < end:
            self._findings.add(Place.CHECKPOINT_ROW, leaf.head, "this checkpoint is missing")
        elif leaf.head != start:
            self._findings.add(
                Place.LEAF_ROW, row.index, f"it was appended to size {leaf.head}, here it follows size {start}"
            )
        self._checks.accept(row.index, leaf)

    def _compare_nodes(self, connection: Connection) -> None:
        """Compare the nodes completed since the last time with the stored ones, level by level."""
        by_level: dict[int, dict[int, bytes]] = {}
        for node in self._expected_nodes:
            by_level.setdefault(node.level, {})[node.index] = node.digest
        self._expected_nodes.clear()
        for level, expected in by_level.items():
            query = select(node_table.c.idx, node_table.c.hash).where(
                node_table.c.level == level, node_table.c.idx.between(min(expected), max(expected))
            )
            stored = {row[0]: row[1] for row in connection.execute(query)}
            for index, digest in expected.items():
                if stored.get(index) != digest:
                    what = "is not the hash of its children" if index in stored else "is missing"
                    place = f"level {level}, index {index}"
                    self._findings.add(Place.NODE, index << level, f"the node {what}", where=place)

    def _check_surplus_nodes(self, connection: Connection, size: int) -> None:
        level, index = node_table.c.level, node_table.c.idx
        surplus = or_(level < 1, level > 62, index < 0, index >= func.coalesce(size, 0).op(">>")(level))  # noqa: PLR2004
        for row in connection.execute(select(level, index).where(surplus).limit(_ROWS_PER_FETCH)):
            place = f"level {row[0]}, index {row[1]}"
            self._findings.add(Place.NODE, None, "no tree of this size has this node", where=place)


class _Peekable:
    """Leaves in order, taken up to a bound."""

    def __init__(self, rows: Iterator[_Row]) -> None:
        self._rows = rows
        self._next: _Row | None = next(rows, None)

    def take_below(self, bound: int) -> list[_Row]:
        """Take every row with an index below `bound`."""
        taken: list[_Row] = []
        while self._next is not None and self._next.index < bound:
            taken.append(self._next)
            self._next = next(self._rows, None)
        return taken

    def rest(self) -> Iterator[_Row]:
        """Take all that is left."""
        while self._next is not None:
            yield self._next
            self._next = next(self._rows, None)


def _stored_leaves(connection: Connection) -> Iterator[_Row]:
    query = select(leaf_table).order_by(leaf_table.c.idx).execution_options(yield_per=_ROWS_PER_FETCH)
    for row in connection.execute(query):
        columns: dict[str, object] = dict(zip(LEAF_COLUMNS, row, strict=True))
        leaf_bytes, stored_hash = row.leaf_bytes, row.leaf_hash
        yield _Row(row.idx, leaf_bytes, stored_hash, leaf_hash(leaf_bytes), columns)


def _stored_checkpoints(connection: Connection) -> Iterator[tuple[int, bytes, str]]:
    query = select(checkpoint_table).order_by(checkpoint_table.c.size).execution_options(yield_per=_ROWS_PER_FETCH)
    yield from connection.execute(query)


def _read_any_text(connection: Connection) -> None:
    """Let altered text that is no longer UTF-8 arrive, to be named as a finding at its place."""
    raw = cast("sqlite3.Connection", connection.connection.dbapi_connection)
    raw.text_factory = lambda data: data.decode(errors="surrogateescape")


def _or_none(lookup: NodeLookup, level: int, index: int) -> bytes | None:
    try:
        return lookup(level, index)
    except NoResultFound:
        return None
