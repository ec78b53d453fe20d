"""Verify the database form of a log.

The walk goes checkpoint by checkpoint, as the log was written.  For the leaves between two checkpoints:

1. the checkpoint's signature gives the root to believe (`checkpoint_rows`); 2. no leaf may be missing, repeated or
beyond the head (`leaf_rows`); 3. the tree grows by the leaves' hashes until its root is the signed one (`tree_growth`);
4. believed bytes give every column, the checkpoint's predecessor, the clocks and the subject's state (here and
`leaf_checks`); 5. what stands beside each leaf is what the leaf says (`beside_rows`); 6. every inner node that was
completed is compared with the stored one (`node_rows`).

A database that cannot be read to its end is a finding, beside all that was found until then; it is never written to.
Where it is the machine that refuses, nothing can be said of the log: that is raised, and is no finding.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import cast

from sqlalchemy import Connection

from audit.anchoring.evidence import Anchor
from audit.checkpoint import Checkpoint, LogVerifier
from audit.errors import AuditCorrupt, LogUnusable, ProofRefused, SettingRefused
from audit.faults import naming_file
from audit.leaf import Leaf, decode_leaf
from audit.location import LogLocation
from audit.merkle import EMPTY_EDGE
from audit.pairing import Pairing
from audit.report import FindingList, Place, Report, shown
from audit.store import open_copy
from audit.verification.beside_rows import BesideRows, believed_floors
from audit.verification.checkpoint_rows import CheckpointRows
from audit.verification.file_check import check_file
from audit.verification.known_heads import KnownHeads
from audit.verification.leaf_checks import LeafChecks
from audit.verification.leaf_rows import LeafRows, StoredLeaf, keep_in_order
from audit.verification.node_rows import NodeRows
from audit.verification.tree_growth import TreeGrowth


def verify_database(
    location: LogLocation,
    verifiers: Sequence[LogVerifier],
    pairing: Pairing | None,
    *,
    anchors: Sequence[Anchor],
    clock_limit_us: int,
) -> Report:
    """Return every contradiction in a log's database; see `verify.verify_log`."""
    findings = FindingList()
    known = KnownHeads(anchors, verifiers, findings)
    checks = LeafChecks(pairing, clock_limit_us, findings)
    checkpoints = CheckpointRows(verifiers, findings)
    walk = _Walk(checkpoints, findings, known, checks)
    try:
        with naming_file(location, LogUnusable):
            engine = open_copy(location)
            try:
                with engine.begin() as connection:
                    _read_any_text(connection)
                    walk.run(connection)
            finally:
                engine.dispose()
    except AuditCorrupt as error:
        findings.add(Place.DATABASE, None, f"the database cannot be read: {error.what}")
    except SettingRefused as error:
        findings.add(Place.DATABASE, None, str(error))
    return Report(
        source=str(location),
        num_leaves=walk.num_leaves,
        num_checkpoints=checkpoints.num_read,
        head_size=None if walk.head is None else walk.head.size,
        head_root=None if walk.head is None else walk.head.root.hex(),
        findings=tuple(findings.findings),
        findings_left_out=findings.left_out,
        unfinished=checks.unfinished,
        notes=tuple(checks.notes),
    )


class _Walk:
    def __init__(
        self, checkpoints: CheckpointRows, findings: FindingList, known: KnownHeads, checks: LeafChecks
    ) -> None:
        self._checkpoints = checkpoints
        self._findings = findings
        self._known = known
        self._checks = checks
        # What was reached, also when the database fails on the way:
        self.num_leaves = 0
        self.head: Checkpoint | None = None

    def run(self, connection: Connection) -> None:
        """Check the file, then the log, then what is left over."""
        check_file(connection, self._findings)
        self._known.compare(0, EMPTY_EDGE.root())
        floors = believed_floors(connection, self._findings)
        rows = LeafRows(connection, self._findings, floors.leaf)
        beside = BesideRows(connection, floors, self._findings)
        nodes = NodeRows(connection, self._findings)
        growth = TreeGrowth(connection, nodes, self._known, self._findings)
        start = self._begin_at(floors.leaf, growth)
        for end in self._checkpoints.batch_ends(connection, floors.leaf):
            if end.num_unknown_signatures:
                unknown = f"{end.num_unknown_signatures} signatures by keys that are not known here"
                self._checks.notes.append(f"checkpoint {end.size}: {unknown}")
            stored = rows.take_below(end.size)
            self.num_leaves += len(stored)
            in_order = keep_in_order(stored, start, end.size, self._findings)
            altered = growth.grow(start, end, in_order)
            for row in in_order:
                leaf = self._check_leaf(row, start, end.size, believed=row.index not in altered)
                beside.check(row.index, leaf)
            start = end.size
            if end.signed is not None:
                self.head = end.signed
        for row in rows.rest():
            self._findings.add(Place.LEAF_ROW, row.index, "no signed checkpoint covers this entry")
        nodes.compare()
        nodes.report_surplus(start)
        beside.finish(start)
        self._known.finish(self.num_leaves)

    def _begin_at(self, floor: int, growth: TreeGrowth) -> int:
        """Go past what was pruned; the leaf that recorded the floor is still to be met."""
        if floor:
            growth.begin_at(floor)
            self._checks.floor = floor
            self._checks.notes.append(f"entries below {floor} were pruned by a recorded act")
            for size in self._known.leave_below(floor):
                self._checks.notes.append(f"the known checkpoint of size {size} lies among pruned entries")
        return floor

    def _check_leaf(self, row: StoredLeaf, start: int, end: int, *, believed: bool) -> Leaf | None:
        """Hold a row to its bytes, and these to the batch `[start, end)` that they stand in; None if not believed."""
        subject = row.columns["subject"]
        if not believed:
            self._checks.skip(str(subject))
            return None
        try:
            leaf = decode_leaf(row.leaf_bytes)
        except ProofRefused as error:
            self._findings.add(Place.LEAF_BYTES, row.index, error.what)
            self._checks.skip(str(subject))
            return None
        for name, value in leaf.columns().items():
            found = row.columns[name]
            if (found != value or type(found) is not type(value)) and name != "idx":  # a moved leaf is a finding below
                self._findings.add(
                    Place.COLUMN, row.index, f"{shown(found)} is stored, the leaf says {shown(value)}", where=name
                )
        if start < leaf.head < end:
            self._findings.add(Place.CHECKPOINT_ROW, leaf.head, "this checkpoint is missing")
        elif leaf.head != start and not (start == self._checks.floor and leaf.head < start):
            self._findings.add(
                Place.LEAF_ROW, row.index, f"it was appended to size {leaf.head}, here it follows size {start}"
            )
        self._checks.accept(row.index, leaf)
        return leaf


def _read_any_text(connection: Connection) -> None:
    """Let altered text that is no longer UTF-8 arrive, to be named as a finding at its place."""
    if connection.dialect.name != "sqlite":
        return
    raw = cast("sqlite3.Connection", connection.connection.dbapi_connection)
    raw.text_factory = lambda data: data.decode(errors="surrogateescape")
