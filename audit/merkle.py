"""The tree of RFC 6962, section 2.1: hashes, the right edge, proofs and their verification.

Pure: bytes and numbers in, bytes out.  A *complete* node `(level, index)` covers the `2**level` leaves that start at
`index << level`; it never changes once its last leaf is in.  Everything here is built from complete nodes alone, so a
store that keeps them serves any proof of any size in O(log n) reads.

    level 2            (2,0)
    level 1      (1,0)       (1,1)
    level 0   0     1     2     3     4     <- right edge of size 5: (2,0), (0,4)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

from audit.errors import ProofRefused

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

NodeReader: TypeAlias = Callable[[int, int], bytes]
"""`(level, index)` of a complete node -> its hash."""


def leaf_hash(leaf_bytes: bytes) -> bytes:
    """Hash of a leaf; the 0x00 prefix keeps a leaf from posing as a node."""
    return sha256(b"\x00" + leaf_bytes).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Node:
    """A complete node."""

    level: int
    index: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class RightEdge:
    """The complete nodes that together cover a tree of `size` leaves, largest first: all that appending needs."""

    size: int
    peaks: tuple[bytes, ...]

    def __post_init__(self) -> None:
        """Refuse a number of peaks that no tree of this size has."""
        if self.size < 0 or len(self.peaks) != self.size.bit_count():
            raise ProofRefused(f"a tree of {self.size} leaves cannot have {len(self.peaks)} peaks")

    def append(self, leaf_hashes: Sequence[bytes]) -> tuple[RightEdge, list[Node]]:
        """Return the edge after these leaves, and every inner node that they completed, in order of completion."""
        peaks = list(self.peaks)
        completed: list[Node] = []
        size = self.size
        for digest in leaf_hashes:
            peaks.append(digest)
            index = size
            level = 0
            while index & 1:  # a right child: its left sibling is the peak below
                right = peaks.pop()
                peaks[-1] = node_hash(peaks[-1], right)
                level += 1
                index >>= 1
                completed.append(Node(level, index, peaks[-1]))
            size += 1
        return RightEdge(size, tuple(peaks)), completed

    def root(self) -> bytes:
        """Merkle tree hash of the whole tree."""
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root


EMPTY_EDGE = RightEdge(0, ())


def edge_coordinates(size: int) -> list[tuple[int, int]]:
    """`(level, index)` of the peaks of a tree of `size` leaves, largest first."""
    coordinates: list[tuple[int, int]] = []
    start = 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            coordinates.append((level, start >> level))
            start += 1 << level
    return coordinates


def growth_coordinates(old_size: int, new_size: int) -> list[tuple[int, int]]:
    """`(level, index)` of the subtrees that cover leaves `[old_size, new_size)`, in order."""
    coordinates: list[tuple[int, int]] = []
    start = old_size
    while start < new_size:
        level = (new_size - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        coordinates.append((level, start >> level))
        start += 1 << level
    return coordinates


def read_edge(read: NodeReader, size: int) -> RightEdge:
    """Load the right edge of a tree of `size` leaves."""
    return RightEdge(size, tuple(read(level, index) for level, index in edge_coordinates(size)))


def tree_root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Root over all leaves at once."""
    return EMPTY_EDGE.append(leaf_hashes)[0].root()


def inclusion_proof(read: NodeReader, index: int, size: int) -> list[bytes]:
    """Audit path of leaf `index` in the tree of `size` leaves, leaf's sibling first (RFC 6962, 2.1.1)."""
    if not 0 <= index < size:
        raise ProofRefused(f"leaf {index} is not in a tree of {size} leaves")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_root(read, middle, end))
            end = middle
        else:
            path.append(_range_root(read, start, middle))
            start = middle
    return path[::-1]


def consistency_proof(read: NodeReader, old_size: int, new_size: int) -> list[bytes]:
    """Proof that the tree of `old_size` leaves is a prefix of the tree of `new_size` (RFC 6962, 2.1.2)."""
    if not 0 <= old_size <= new_size:
        raise ProofRefused(f"a tree of {old_size} leaves is no prefix of one of {new_size}")
    if old_size in (0, new_size):
        return []
    proof: list[bytes] = []
    start, end = 0, new_size
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            proof.append(_range_root(read, middle, end))
            end = middle
        else:
            proof.append(_range_root(read, start, middle))
            start = middle
    if start != 0:  # otherwise the old root itself is the first hash, and the verifier knows it
        proof.append(_range_root(read, start, end))
    return proof[::-1]


def verify_inclusion(digest: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Raise unless the path leads from this leaf hash at `index` to the root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        raise ProofRefused(f"leaf {index} is not in a tree of {size} leaves")
    _check_hashes([digest, root, *path])
    current = digest
    for sibling, sibling_is_left in _climb(index, size - 1, path):
        current = node_hash(sibling, current) if sibling_is_left else node_hash(current, sibling)
    if current != root:
        raise ProofRefused(f"the inclusion proof of leaf {index} does not lead to the root of size {size}")


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raise unless the proof shows the old tree as a prefix of the new one (RFC 9162, 2.1.4.2)."""
    if not 0 <= old_size <= new_size:
        raise ProofRefused(f"a tree of {old_size} leaves is no prefix of one of {new_size}")
    _check_hashes([old_root, new_root, *proof])
    if old_size in (0, new_size):
        if proof:
            raise ProofRefused("the consistency proof is too long")
        if old_root != (EMPTY_ROOT if old_size == 0 else new_root):
            raise ProofRefused(f"two different roots for size {old_size}")
        return
    hashes = list(proof)
    if old_size & (old_size - 1) == 0:  # a power of two: its root is a complete node and opens the proof
        hashes.insert(0, old_root)
    if not hashes:
        raise ProofRefused("the consistency proof is empty")
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position >>= 1
        last >>= 1
    old_current = new_current = hashes[0]
    for sibling, sibling_is_left in _climb(position, last, hashes[1:]):
        if sibling_is_left:
            old_current = node_hash(sibling, old_current)
            new_current = node_hash(sibling, new_current)
        else:
            new_current = node_hash(new_current, sibling)
    if old_current != old_root or new_current != new_root:
        raise ProofRefused(f"size {new_size} does not extend size {old_size}")


def _climb(position: int, last: int, path: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Walk from node `position` of a level that ends at `last` up to the root; yield each sibling and its side."""
    for sibling in path:
        if last == 0:
            raise ProofRefused("the proof is too long")
        sibling_is_left = bool(position & 1) or position == last
        if sibling_is_left:
            while position & 1 == 0 and position != 0:  # levels where this node has no right sibling
                position >>= 1
                last >>= 1
        yield sibling, sibling_is_left
        position >>= 1
        last >>= 1
    if last != 0:
        raise ProofRefused("the proof is too short")


def _split(num_leaves: int) -> int:
    """Largest power of two smaller than `num_leaves` (at least two leaves)."""
    return 1 << ((num_leaves - 1).bit_length() - 1)


def _range_root(read: NodeReader, start: int, end: int) -> bytes:
    """Root over leaves `[start, end)`, where `start` is aligned as every split of RFC 6962 aligns it."""
    num_leaves = end - start
    level = num_leaves.bit_length() - 1
    if num_leaves == 1 << level:
        return read(level, start >> level)
    middle = start + _split(num_leaves)
    return node_hash(_range_root(read, start, middle), _range_root(read, middle, end))


def _check_hashes(hashes: Sequence[bytes]) -> None:
    for digest in hashes:
        if len(digest) != HASH_BYTES:
            raise ProofRefused(f"a hash of {len(digest)} bytes; SHA-256 has {HASH_BYTES}")
