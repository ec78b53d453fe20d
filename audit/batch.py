"""Plan one commit: drafts in, rows and a signed checkpoint out.

Pure: nothing is stored here and no edge is changed; the writer applies a plan or drops it whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audit.checkpoint import Checkpoint, LogSigner, sign_checkpoint
from audit.event import Receipt
from audit.leaf import LEAF_COLUMNS, DraftLeaf
from audit.merkle import RightEdge, leaf_hash


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Everything that one transaction inserts, and what is true once it is durable."""

    leaf_rows: tuple[tuple[object, ...], ...]
    policy_rows: tuple[tuple[int, str], ...]
    content_rows: tuple[tuple[int, str, str, bytes, bytes], ...]
    pruning_rows: tuple[tuple[str, int, int], ...]
    node_rows: tuple[tuple[int, int, bytes], ...]
    checkpoint_row: tuple[int, bytes, str]
    receipts: tuple[Receipt, ...]
    edge: RightEdge
    checkpoint: Checkpoint


def plan_batch(edge: RightEdge, drafts: Sequence[DraftLeaf], signers: Sequence[LogSigner]) -> BatchPlan:
    """Give each draft the next place, extend the tree, and sign its new head."""
    encoded = [draft.encode(edge.size + offset, edge.size) for offset, draft in enumerate(drafts)]
    hashes = [leaf_hash(leaf_bytes) for leaf_bytes in encoded]
    new_edge, nodes = edge.append(hashes)
    checkpoint = Checkpoint(signers[0].name, new_edge.size, new_edge.root())
    rows = []
    for offset, (draft, leaf_bytes, digest) in enumerate(zip(drafts, encoded, hashes, strict=True)):
        columns = {
            **draft.columns,
            "idx": edge.size + offset,
            "head": edge.size,
            "leaf_bytes": leaf_bytes,
            "leaf_hash": digest,
        }
        rows.append(tuple(columns[name] for name in LEAF_COLUMNS))
    placed = [(edge.size + offset, draft) for offset, draft in enumerate(drafts)]
    return BatchPlan(
        leaf_rows=tuple(rows),
        policy_rows=tuple((index, policy_id) for index, draft in placed for policy_id in draft.policy_ids),
        content_rows=tuple(
            (index, content.phase, content.key_id, content.nonce, content.ciphertext)
            for index, draft in placed
            for content in draft.contents
        ),
        pruning_rows=tuple(
            (draft.floor.what.value, draft.floor.minimum_index, index)
            for index, draft in placed
            if draft.floor is not None
        ),
        node_rows=tuple((node.level, node.index, node.digest) for node in nodes),
        checkpoint_row=(checkpoint.size, checkpoint.root, sign_checkpoint(checkpoint, signers)),
        receipts=tuple(
            Receipt(edge.size + offset, digest.hex(), new_edge.size) for offset, digest in enumerate(hashes)
        ),
        edge=new_edge,
        checkpoint=checkpoint,
    )
