from __future__ import annotations

import dataclasses

import pytest
from audit_log_builder import OTHER_SIGNER, PLACE, SIGNER, make_event
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.batch import plan_batch
from audit.errors import ProofRefused
from audit.leaf import draft_leaf
from audit.merkle import EMPTY_EDGE, inclusion_proof
from audit.proof import EntryProof

PLAN = plan_batch(EMPTY_EDGE, [draft_leaf(make_event(number), PLACE) for number in range(11)], [SIGNER])
LEAVES = [bytes(row[2]) for row in PLAN.leaf_rows]
NODES = {(0, row[0]): row[3] for row in PLAN.leaf_rows} | {(row[0], row[1]): row[2] for row in PLAN.node_rows}


def proof_of(index: int, extra: bytes | None = None) -> EntryProof:
    """Make the proof of one leaf."""
    path = inclusion_proof(lambda level, number: NODES[level, number], index, len(LEAVES))
    return EntryProof(index, tuple(path), PLAN.checkpoint_row[2], extra)


@pytest.mark.parametrize("index", range(11))
def test_a_proof_written_is_a_proof_read_and_verifies(index: int) -> None:
    """The text form carries all that a stranger needs beside leaf and key."""
    proof = EntryProof.from_text(proof_of(index).to_text())
    assert proof == proof_of(index)
    assert proof.verify(LEAVES[index], [SIGNER.verifier]) == PLAN.checkpoint


def test_the_text_is_the_one_of_the_specification() -> None:
    """Header, extra, index, hashes, empty line, checkpoint verbatim."""
    lines = proof_of(3, b"more").to_text().split("\n")
    assert lines[:3] == ["c2sp.org/tlog-proof@v1", "extra bW9yZQ==", "index 3"]
    assert "\n".join(lines[lines.index("") + 1 :]) == PLAN.checkpoint_row[2]
    assert EntryProof.from_text("\n".join(lines)).extra == b"more"


def test_a_proof_of_another_leaf_index_or_key_is_refused() -> None:
    """A proof proves one thing."""
    proof = proof_of(3)
    with pytest.raises(ProofRefused):
        proof.verify(LEAVES[4], [SIGNER.verifier])
    with pytest.raises(ProofRefused):
        dataclasses.replace(proof, index=4).verify(LEAVES[3], [SIGNER.verifier])
    with pytest.raises(ProofRefused):
        proof.verify(LEAVES[3], [OTHER_SIGNER.verifier])


@given(st.integers(0, 10_000), st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_every_flipped_bit_of_a_proof_file_is_found(position: int, bit: int) -> None:
    """No bit of the file is without meaning."""
    flipped = bytearray(proof_of(5).to_text().encode())
    flipped[position % len(flipped)] ^= 1 << bit
    with pytest.raises((ProofRefused, UnicodeDecodeError)):
        EntryProof.from_text(flipped.decode()).verify(LEAVES[5], [SIGNER.verifier])


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_arbitrary_text_is_refused_and_never_crashes(text: str) -> None:
    """Malformed input is a refusal."""
    with pytest.raises(ProofRefused):
        EntryProof.from_text(text)
