from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import ProofRefused
from audit.merkle import (
    EMPTY_EDGE,
    EMPTY_ROOT,
    RightEdge,
    consistency_proof,
    edge_coordinates,
    inclusion_proof,
    leaf_hash,
    node_hash,
    read_edge,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

# The eight inputs and the roots of sizes 0 to 8 that RFC 6962 implementations share.
INPUTS = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive_root(hashes: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not hashes:
        return EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node_hash(naive_root(hashes[:split]), naive_root(hashes[split:]))


class Tree:
    """Every complete node of a tree of these leaves."""

    def __init__(self, num_leaves: int) -> None:
        self.hashes = [leaf_hash(b"leaf %d" % number) for number in range(num_leaves)]
        self.edge, completed = EMPTY_EDGE.append(self.hashes)
        self.nodes = {(0, index): digest for index, digest in enumerate(self.hashes)}
        self.nodes |= {(node.level, node.index): node.digest for node in completed}

    def read(self, level: int, index: int) -> bytes:
        """Serve as a node reader."""
        return self.nodes[level, index]

    def root(self, size: int) -> bytes:
        """Return the root of a prefix, by definition."""
        return naive_root(self.hashes[:size])


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_rfc_6962(size: int) -> None:
    """The golden vectors hold."""
    assert tree_root([leaf_hash(data) for data in INPUTS[:size]]).hex() == ROOTS[size]


@given(st.lists(st.integers(1, 40), max_size=8))
@settings(max_examples=50, deadline=None)
def test_growing_in_any_steps_gives_the_tree_of_the_definition(steps: list[int]) -> None:
    """However leaves are batched, edge, root and completed nodes are those of the whole."""
    tree, edge, nodes = Tree(sum(steps)), EMPTY_EDGE, {}
    for step in steps:
        edge, completed = edge.append(tree.hashes[edge.size : edge.size + step])
        nodes |= {(node.level, node.index): node.digest for node in completed}
        assert edge.root() == tree.root(edge.size)
        assert read_edge(tree.read, edge.size) == edge
    assert nodes == {place: digest for place, digest in tree.nodes.items() if place[0]}


def test_every_leaf_of_every_size_is_proven_and_no_other_leaf_is() -> None:
    """Inclusion holds exactly for the leaf, index, size and root it was made for."""
    tree = Tree(33)
    for size in range(1, 34):
        root = tree.root(size)
        for index in range(size):
            path = inclusion_proof(tree.read, index, size)
            verify_inclusion(tree.hashes[index], index, size, path, root)
            for wrong in (
                (tree.hashes[(index + 1) % 33], index, size, path, root),
                (tree.hashes[index], index ^ 1, size, path, root),
                (tree.hashes[index], index, size, path, tree.root(size - 1)),
                (tree.hashes[index], index, size, [*path, root], root),
                (tree.hashes[index], size, size, path, root),
                (tree.hashes[index], -1, size, path, root),
            ):
                with pytest.raises(ProofRefused):
                    verify_inclusion(*wrong)
            if path:
                with pytest.raises(ProofRefused):
                    verify_inclusion(tree.hashes[index], index, size, path[:-1], root)


def test_every_prefix_is_proven_and_nothing_else_is() -> None:
    """Consistency holds exactly for the two sizes and roots it was made for."""
    tree = Tree(33)
    for new in range(34):
        for old in range(new + 1):
            proof = consistency_proof(tree.read, old, new)
            verify_consistency(old, tree.root(old), new, tree.root(new), proof)
            with pytest.raises(ProofRefused):
                verify_consistency(old, leaf_hash(b"x"), new, tree.root(new), proof)
            with pytest.raises(ProofRefused):
                verify_consistency(old, tree.root(old), new, tree.root(new), [*proof, EMPTY_ROOT])
            if old:
                with pytest.raises(ProofRefused):
                    verify_consistency(old, tree.root(old), new, leaf_hash(b"x"), proof)
            if proof:
                with pytest.raises(ProofRefused):
                    verify_consistency(old, tree.root(old), new, tree.root(new), proof[:-1])


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_one_flipped_bit_breaks_a_proof(data: st.DataObject) -> None:
    """No bit of a path, leaf or root is without meaning."""
    tree = Tree(100)
    size = data.draw(st.integers(2, 100))
    index = data.draw(st.integers(0, size - 1))
    material = [tree.hashes[index], tree.root(size), *inclusion_proof(tree.read, index, size)]
    which = data.draw(st.integers(0, len(material) - 1))
    bit = data.draw(st.integers(0, 255))
    flipped = bytearray(material[which])
    flipped[bit // 8] ^= 1 << bit % 8
    material[which] = bytes(flipped)
    with pytest.raises(ProofRefused):
        verify_inclusion(material[0], index, size, material[2:], material[1])


def test_a_leaf_cannot_pose_as_a_node() -> None:
    """The two prefixes keep the two kinds of hash apart."""
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)


def test_an_edge_with_the_wrong_number_of_peaks_is_refused() -> None:
    """Size and peaks must fit each other."""
    with pytest.raises(ProofRefused):
        RightEdge(3, (EMPTY_ROOT,))


@given(st.integers(0, 2**40))
def test_edge_coordinates_cover_the_tree_without_gap_or_overlap(size: int) -> None:
    """The peaks are the binary digits of the size."""
    position = 0
    for level, index in edge_coordinates(size):
        assert index << level == position
        position += 1 << level
    assert position == size
