"""How a tree grew from one signed head to a later one, for whoever holds the whole tree of the earlier head.

Pure.  The entries between two heads are covered by the fewest complete subtrees; added to the peaks of the earlier
tree they give the later root.  Who has only the two heads needs an RFC 9162 consistency proof instead.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from audit.checkpoint import decode_base64
from audit.errors import ProofRefused
from audit.merkle import HASH_BYTES, NodeReader, edge_coordinates, growth_coordinates, node_hash


def grown_root(read: NodeReader, old_size: int, new_size: int, subtrees: Sequence[bytes]) -> bytes:
    """Root of the tree of `new_size`, from the nodes of the tree of `old_size` and the subtrees that came to it."""
    coordinates = growth_coordinates(old_size, new_size)
    if not 0 < old_size < new_size or len(coordinates) != len(subtrees):
        raise ProofRefused(f"{len(subtrees)} subtrees do not lead from a tree of {old_size} to one of {new_size}")
    peaks = [(level, read(level, index)) for level, index in edge_coordinates(old_size)]
    for (level, _), digest in zip(coordinates, subtrees, strict=True):
        peaks.append((level, digest))
        while len(peaks) > 1 and peaks[-1][0] == peaks[-2][0]:
            height, right = peaks.pop()
            peaks[-1] = (height + 1, node_hash(peaks[-1][1], right))
    root = peaks[-1][1]
    for _, peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def growth_text(subtrees: Sequence[bytes]) -> str:
    """Write index.growth: one subtree's hash a line, in base64."""
    return "".join(f"{base64.b64encode(digest).decode()}\n" for digest in subtrees)


def growth_from_text(text: str) -> list[bytes]:
    """Parse what `growth_text` writes."""
    lines = text.split("\n")
    if lines.pop():
        raise ProofRefused("the growth does not end with a line")
    subtrees = [decode_base64(line, "a subtree's hash") for line in lines]
    if any(len(digest) != HASH_BYTES for digest in subtrees):
        raise ProofRefused("a subtree's hash is not a SHA-256")
    return subtrees
