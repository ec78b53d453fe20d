"""Decide whether a log may be written to: is what is stored what was last signed?

Checks the head only (signature, size, root over the stored right edge, the last batch byte by byte), so that opening
stays O(log n); `audit.verify` checks everything.  It repairs nothing: a batch is in the log whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import NoResultFound

from audit.checkpoint import Checkpoint, LogVerifier, open_checkpoint
from audit.errors import AuditCorrupt, ProofRefused
from audit.leaf import decode_leaf
from audit.merkle import RightEdge, leaf_hash, read_edge
from audit.schema import leaf_table
from audit.store import NodeLookup, newest_checkpoint, require_kinds

_MAX_TAIL_LEN = 1_024


@dataclass(frozen=True, slots=True)
class RecoveredHead:
    """Where appending goes on."""

    checkpoint: Checkpoint
    edge: RightEdge
    last_epoch: int


def recover_head(connection: Connection, verifiers: Sequence[LogVerifier]) -> RecoveredHead:
    """Return the proven head, or raise `AuditCorrupt` with the place."""
    size, root, note = _stored_head(connection)
    try:
        checkpoint = open_checkpoint(note, verifiers)
    except ProofRefused as error:
        raise AuditCorrupt(None, f"the newest checkpoint: {error.what}", hint=error.hint) from error
    if (checkpoint.size, checkpoint.root) != (size, root):
        raise AuditCorrupt(None, f"checkpoint {size} is stored beside a note for size {checkpoint.size}")
    num_leaves = connection.execute(select(func.coalesce(func.max(leaf_table.c.idx) + 1, 0))).scalar_one()
    if num_leaves != size:
        first = min(num_leaves, size)
        raise AuditCorrupt(first, f"{num_leaves} leaves are stored, {size} were signed")
    try:
        edge = read_edge(NodeLookup(connection), size)
    except NoResultFound as error:
        raise AuditCorrupt(None, f"a node of the right edge of size {size} is missing") from error
    if edge.root() != root:
        raise AuditCorrupt(None, f"the stored right edge does not have the signed root of size {size}")
    return RecoveredHead(checkpoint, edge, _check_tail(connection, size))


def _stored_head(connection: Connection) -> tuple[int, bytes, str]:
    try:
        return newest_checkpoint(connection)
    except NoResultFound as error:
        raise AuditCorrupt(None, "no checkpoint is stored; even an empty log has one") from error


def _check_tail(connection: Connection, size: int) -> int:
    """Recompute the last leaves from their bytes; return the last epoch, 0 for an empty log."""
    query = (
        select(leaf_table.c.idx, leaf_table.c.leaf_bytes, leaf_table.c.leaf_hash)
        .where(leaf_table.c.idx >= size - _MAX_TAIL_LEN)
        .order_by(leaf_table.c.idx)
    )
    last_epoch = 0
    for index, leaf_bytes, digest in connection.execute(query):
        require_kinds(index, (leaf_bytes, bytes))
        if leaf_hash(leaf_bytes) != digest:
            raise AuditCorrupt(index, "the leaf's bytes do not have its hash")
        try:
            leaf = decode_leaf(leaf_bytes)
        except ProofRefused as error:
            raise AuditCorrupt(index, error.what) from error
        if leaf.index != index:
            raise AuditCorrupt(index, f"the leaf here was written for index {leaf.index}")
        last_epoch = leaf.place.epoch
    return last_epoch
