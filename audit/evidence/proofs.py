"""Single entries that stand alone: each as its own bytes and its C2SP tlog-proof under the pack's signed head."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from audit.evidence.index import PROOF_FOLDER
from audit.evidence.tile_log import TileLog


def leaf_name(index: int) -> str:
    """Name of an entry's bytes in a pack."""
    return f"{PROOF_FOLDER}/{index}.leaf"


def proof_name(index: int) -> str:
    """Name of an entry's proof in a pack."""
    return f"{PROOF_FOLDER}/{index}.tlog-proof"


def write_proofs(log: TileLog, draft: Path, indexes: Iterable[int]) -> None:
    """Write each entry's bytes and proof."""
    (draft / PROOF_FOLDER).mkdir(mode=0o700, exist_ok=True)
    for index in indexes:
        (draft / leaf_name(index)).write_bytes(log.leaf(index))
        (draft / proof_name(index)).write_text(log.proof(index).to_text(), newline="")
