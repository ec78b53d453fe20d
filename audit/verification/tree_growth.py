"""The tree, grown again from the stored leaves, batch by batch, and held to every signed root on the way.

Where a leaf's bytes and its stored hash disagree, the signed root says which of them was altered.  When no choice of
hashes gives the signed root, leaves were rewritten together with their hashes: the stored nodes tell where, and growth
goes on from the stored right edge if that one has the signed root.  Never: growth from an edge that no signature or no
leaf stands behind - while the edge is not known, only places can be named.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import MultipleResultsFound, NoResultFound

from audit.checkpoint import Checkpoint
from audit.errors import AuditCorrupt
from audit.merkle import EMPTY_EDGE, RightEdge, node_hash, read_edge
from audit.report import FindingList, Place
from audit.store import NodeLookup
from audit.verification.checkpoint_rows import BatchEnd
from audit.verification.disagreements import ways_to_settle
from audit.verification.known_heads import KnownHeads
from audit.verification.leaf_rows import StoredLeaf
from audit.verification.node_rows import NodeRows

_NOT_ONE_HASH = (NoResultFound, MultipleResultsFound, AuditCorrupt)
"""How a lookup says that no node, several, or something else is stored there: each a finding of `node_rows`."""


class TreeGrowth:
    """Owns the right edge of the tree so far."""

    def __init__(self, connection: Connection, nodes: NodeRows, known: KnownHeads, findings: FindingList) -> None:
        self._lookup = NodeLookup(connection)
        self._nodes = nodes
        self._known = known
        self._findings = findings
        self._edge: RightEdge | None = EMPTY_EDGE
        """None after leaves that lead to no signed root."""

    def begin_at(self, floor: int) -> RightEdge | None:
        """Begin where entries were pruned, with the stored nodes for what is gone; the next signed root proves them."""
        try:
            self._edge = read_edge(self._lookup, floor)
        except _NOT_ONE_HASH:
            self._findings.add(Place.NODE, floor, "a node that stands for pruned entries is missing")
            self._edge = None
        return self._edge

    def grow(self, start: int, end: BatchEnd, rows: Sequence[StoredLeaf]) -> set[int]:
        """Go on by one batch, whose rows stand in order; return the indices whose bytes are not the signed ones."""
        edge, settled = self._edge, None
        if edge is not None and len(rows) == end.size - start:
            settled = self._settle(edge, rows, end.signed)
        if edge is None or settled is None:
            self._locate_rewritten(start, end.size, rows)
            self._go_on_from_stored_edge(end)
            return set()
        hashes, altered = settled
        while (size := self._known.next_size()) is not None and size <= end.size:
            self._known.compare(size, edge.append(hashes[: size - start])[0].root())
        self._edge, completed = edge.append(hashes)
        self._nodes.expect(completed)
        return altered

    def _settle(
        self, edge: RightEdge, rows: Sequence[StoredLeaf], signed: Checkpoint | None
    ) -> tuple[list[bytes], set[int]] | None:
        """Return the hashes that give the signed root, and what was altered; None if no choice gives it."""
        doubtful = [row.index for row in rows if row.computed_hash != row.stored_hash]
        if signed is None:  # nothing to believe in here: the next good checkpoint will tell
            for index in doubtful:
                self._findings.add(Place.LEAF_BYTES, index, "the bytes and the stored hash disagree")
            return [row.stored_hash for row in rows], set(doubtful)
        for way in ways_to_settle(len(doubtful)):
            altered = {index for index, bytes_were_altered in zip(doubtful, way, strict=True) if bytes_were_altered}
            hashes = [row.stored_hash if row.index in altered else row.computed_hash for row in rows]
            if edge.append(hashes)[0].root() == signed.root:
                for index in doubtful:
                    self._name_altered(index, bytes_were_altered=index in altered)
                return hashes, altered
        return None

    def _name_altered(self, index: int, *, bytes_were_altered: bool) -> None:
        if bytes_were_altered:
            self._findings.add(Place.LEAF_BYTES, index, "the bytes are not those that were signed")
        else:
            self._findings.add(Place.LEAF_HASH, index, "the stored hash is not that of the signed bytes")

    def _locate_rewritten(self, start: int, end: int, rows: Sequence[StoredLeaf]) -> None:
        """Say what can be said about leaves that do not lead to the signed root."""
        num_before = len(self._findings.findings)
        for row in rows:
            if row.computed_hash != row.stored_hash:
                self._findings.add(Place.LEAF_BYTES, row.index, "the bytes and the stored hash disagree")
        hashes = {row.index: row.computed_hash for row in rows}
        for right in [index for index in hashes if index % 2]:  # never by counting to `end`, which may be any number
            left = right - 1
            left_hash = hashes.get(left) or self._node_or_none(0, left)
            parent = self._node_or_none(1, left // 2)
            if left_hash is None or parent is None:
                continue
            if node_hash(left_hash, hashes[right]) != parent:
                which = "it or the next" if left >= start else "the next"
                self._findings.add(Place.LEAF_BYTES, max(left, start), f"{which} was rewritten together with its hash")
        if len(self._findings.findings) == num_before and end > start:
            self._findings.add(Place.LEAF_ROW, start, f"entries {start} to {end - 1} do not lead to the signed root")

    def _go_on_from_stored_edge(self, end: BatchEnd) -> None:
        self._edge = self._stored_edge(end)
        if self._edge is not None:
            self._known.compare(end.size, self._edge.root())
        self._known.pass_over(end.size)

    def _stored_edge(self, end: BatchEnd) -> RightEdge | None:
        if end.signed is None:
            return None
        try:
            edge = read_edge(self._lookup, end.size)
        except _NOT_ONE_HASH:
            return None
        return edge if edge.root() == end.signed.root else None

    def _node_or_none(self, level: int, index: int) -> bytes | None:
        try:
            return self._lookup(level, index)
        except _NOT_ONE_HASH:
            return None
