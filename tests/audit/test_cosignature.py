"""Cosignatures: the example of the specification, and every way a line may not count."""

from __future__ import annotations

import base64

import pytest
from anchored_logs import Tree, numbered
from audit_log_builder import SIGNER
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import LogVerifier, open_checkpoint
from audit.cosignature import CosignatureVerifier, Cosigner, add_lines, cosignatures_of
from audit.errors import KeyRefused, ProofRefused

AT_S = 1_763_964_000
HEAD = Tree(numbered(5)).head(5)
TEXT = HEAD.checkpoint.text()
ONE = Cosigner("w.example/one", Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
TWO = Cosigner("w.example/two", Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))


def test_a_cosigned_note_is_still_the_log_s_note_and_says_who_saw_it_when() -> None:
    """The log's own reader ignores the lines; who knows the witnesses finds them in the order asked for."""
    note = add_lines(HEAD.note, [ONE.cosign(TEXT, AT_S), TWO.cosign(TEXT, AT_S + 1)])
    assert open_checkpoint(note, [SIGNER.verifier]) == HEAD.checkpoint
    found = cosignatures_of(note, [TWO.verifier, ONE.verifier])
    assert [(one.verifier.name, one.at_s) for one in found] == [("w.example/two", AT_S + 1), ("w.example/one", AT_S)]
    assert cosignatures_of(note, [ONE.verifier])[0].line in note
    assert cosignatures_of(HEAD.note, [ONE.verifier]) == ()


def test_one_witness_counts_once_and_its_newest_line_stands() -> None:
    """Two lines by one key are one word; the older gives way when the newer is added."""
    older, newer = ONE.cosign(TEXT, AT_S), ONE.cosign(TEXT, AT_S + 60)
    both = f"{HEAD.note}{newer.line}{older.line}"
    assert [one.at_s for one in cosignatures_of(both, [ONE.verifier])] == [AT_S + 60]
    replaced = add_lines(add_lines(HEAD.note, [older]), [newer])
    assert older.line not in replaced
    assert newer.line in replaced


@pytest.mark.parametrize("bit", range(0, 8 * (4 + 8 + 64), 7))
def test_every_flipped_bit_of_a_line_is_found(bit: int) -> None:
    """In the key id the line is a stranger's and does not count; in time or signature it refuses the note."""
    line = ONE.cosign(TEXT, AT_S).line
    head, _, encoded = line.rstrip("\n").rpartition(" ")
    blob = bytearray(base64.b64decode(encoded))
    blob[bit // 8] ^= 1 << bit % 8
    note = f"{HEAD.note}{head} {base64.b64encode(blob).decode()}\n"
    if bit < 32:
        assert cosignatures_of(note, [ONE.verifier]) == ()
    else:
        with pytest.raises(ProofRefused):
            cosignatures_of(note, [ONE.verifier])


def test_a_cosignature_of_another_head_does_not_count() -> None:
    """Moved under another text it is a bad line by a known key."""
    other = Tree(numbered(5, changed=2)).head(5)
    with pytest.raises(ProofRefused, match="does not verify"):
        cosignatures_of(add_lines(other.note, [ONE.cosign(TEXT, AT_S)]), [ONE.verifier])


def test_a_witness_key_is_not_a_log_key_and_the_reverse() -> None:
    """The same key of another kind has another id, and neither text form is taken for the other."""
    as_log = LogVerifier(ONE.verifier.name, ONE.verifier.public_key)
    assert as_log.key_id != ONE.verifier.key_id
    assert CosignatureVerifier.from_vkey(ONE.verifier.vkey) == ONE.verifier
    with pytest.raises(KeyRefused):
        CosignatureVerifier.from_vkey(as_log.vkey)
    with pytest.raises(KeyRefused):
        LogVerifier.from_vkey(ONE.verifier.vkey)
    with pytest.raises(KeyRefused):
        CosignatureVerifier.from_vkey(ONE.verifier.vkey.replace("one", "two"))
