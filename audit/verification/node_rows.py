"""The stored inner nodes against those that the growing tree completes.

A node that differs, lacks or belongs to no tree of this size is a finding.  The stored ones are evidence of nothing:
they are compared and never built upon.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import BigInteger, Connection, bindparam, func, or_, select

from audit.merkle import Node
from audit.report import FindingList, Place, shown
from audit.schema import node_table

_NODES_PER_QUERY = 4_096
_MAX_SURPLUS_NAMED = 1_024
_MAX_LEVEL = 62


class NodeRows:
    """Owns the nodes that were completed and not yet compared."""

    def __init__(self, connection: Connection, findings: FindingList) -> None:
        self._connection = connection
        self._findings = findings
        self._expected: list[Node] = []

    def expect(self, completed: Sequence[Node]) -> None:
        """Note nodes that must be stored; they are compared when enough have come together."""
        self._expected += completed
        if len(self._expected) >= _NODES_PER_QUERY:
            self.compare()

    def compare(self) -> None:
        """Compare what was completed since the last time, level by level."""
        by_level: dict[int, dict[int, bytes]] = {}
        for node in self._expected:
            by_level.setdefault(node.level, {})[node.index] = node.digest
        self._expected.clear()
        for level, expected in by_level.items():
            query = select(node_table.c.idx, node_table.c.hash).where(
                node_table.c.level == level, node_table.c.idx.between(min(expected), max(expected))
            )
            stored = {row[0]: row[1] for row in self._connection.execute(query)}
            for index, digest in expected.items():
                if stored.get(index) != digest:
                    what = "is not the hash of its children" if index in stored else "is missing"
                    place = f"level {level}, index {index}"
                    self._findings.add(Place.NODE, index << level, f"the node {what}", where=place)

    def report_surplus(self, size: int) -> None:
        """Name stored nodes that no tree of `size` leaves has."""
        level, index = node_table.c.level, node_table.c.idx
        beyond = or_(
            level < 1, level > _MAX_LEVEL, index < 0, index >= bindparam("size", size, BigInteger).op(">>")(level)
        )
        if self._connection.dialect.name == "sqlite":  # elsewhere a column holds nothing but its kind
            beyond = or_(func.typeof(level) != "integer", func.typeof(index) != "integer", beyond)
        query = select(level, index).where(beyond).limit(_MAX_SURPLUS_NAMED)
        for row in self._connection.execute(query):
            place = f"level {shown(row[0])}, index {shown(row[1])}"
            self._findings.add(Place.NODE, None, "no tree of this size has this node", where=place)
