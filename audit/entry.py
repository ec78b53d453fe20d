"""One leaf as it was written: bytes that have their hash, decoded.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from audit.errors import AuditCorrupt, ProofRefused
from audit.leaf import Leaf, decode_leaf
from audit.merkle import leaf_hash


@dataclass(frozen=True, slots=True)
class Entry:
    """One leaf as it was written."""

    index: int
    leaf: Leaf
    leaf_bytes: bytes
    leaf_hash: bytes


def read_entry(index: int, leaf_bytes: bytes, digest: bytes) -> Entry:
    """Return what is stored at an index, or say in what it contradicts itself.

    Raises:
        AuditCorrupt: the bytes do not have the hash, are no leaf, or are one of another place.
    """
    if leaf_hash(leaf_bytes) != digest:
        raise AuditCorrupt(index, "the leaf's bytes do not have its hash")
    try:
        leaf = decode_leaf(leaf_bytes)
    except ProofRefused as error:
        raise AuditCorrupt(index, error.what) from error
    if leaf.index != index:
        raise AuditCorrupt(index, f"the leaf here was written for index {leaf.index}")
    return Entry(index, leaf, leaf_bytes, digest)
