from __future__ import annotations

from pathlib import Path

import pytest
from audit_log_builder import OTHER_SIGNER, SIGNER
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.checkpoint import Checkpoint, LogSigner, LogVerifier, open_checkpoint, sign_checkpoint, split_note
from audit.errors import KeyRefused, ProofRefused

HEAD = Checkpoint(SIGNER.name, 42, b"\x11" * 32)
NOTE = sign_checkpoint(HEAD, [SIGNER])


def test_the_example_of_signed_note_verifies() -> None:
    """A key and a note that the specification prints."""
    verifier = LogVerifier.from_vkey("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
    note = (
        "This is an example message.\n\n— example.com/foo "
        "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
    )
    text, [(name, key_id, signature)] = split_note(note)
    assert (name, key_id) == (verifier.name, verifier.key_id)
    assert verifier.verifies(text, signature)
    assert not verifier.verifies(text + "x", signature)


def test_a_note_written_is_a_note_read() -> None:
    """What was signed comes back, from the text form of the key alone."""
    assert LogVerifier.from_vkey(SIGNER.verifier.vkey).open(NOTE) == HEAD


@given(st.integers(0, 10_000), st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_every_flipped_bit_of_a_note_is_found(position: int, bit: int) -> None:
    """No bit of a note signed by one key is without meaning."""
    flipped = bytearray(NOTE.encode())
    flipped[position % len(flipped)] ^= 1 << bit
    with pytest.raises((ProofRefused, UnicodeDecodeError)):
        SIGNER.verifier.open(flipped.decode())


def test_signatures_by_unknown_keys_are_ignored_and_known_ones_must_be_good() -> None:
    """A key rotates, a witness cosigns; neither old nor new verifiers mind."""
    both = sign_checkpoint(HEAD, [SIGNER, OTHER_SIGNER])
    assert SIGNER.verifier.open(both) == HEAD
    assert OTHER_SIGNER.verifier.open(both) == HEAD
    assert open_checkpoint(both, [SIGNER.verifier, OTHER_SIGNER.verifier]) == HEAD
    with pytest.raises(ProofRefused, match="no known key"):
        OTHER_SIGNER.verifier.open(NOTE)
    text, lines = split_note(both)
    forged = f"{text}\n{SIGNER.signature_line(text)}{OTHER_SIGNER.signature_line(text + 'x')}"
    assert len(lines) == 2
    with pytest.raises(ProofRefused, match="does not verify"):
        open_checkpoint(forged, [SIGNER.verifier, OTHER_SIGNER.verifier])


def test_a_witness_cannot_speak_for_the_log() -> None:
    """The origin must be the name of a key that signed."""
    witness = LogSigner.from_seed("witness.example", b"\x09" * 32)
    with pytest.raises(ProofRefused, match="origin"):
        open_checkpoint(sign_checkpoint(HEAD, [witness]), [witness.verifier, SIGNER.verifier])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "o\n1\n",
        "o\n01\nERERERERERERERERERERERERERERERERERERERERERE=\n",
        "o\n-1\nERERERERERERERERERERERERERERERERERERERERERE=\n",
        "o\n1\nERERERERERERERERERERERERERERERERERERERERERE\n",
        "o\n1\nERERERERERERERERERERERERERERERERERERERERERF=\n",
        "o\n1\nEREREQ==\n",
        "\n1\nERERERERERERERERERERERERERERERERERERERERERE=\n",
        "o\n1\nERERERERERERERERERERERERERERERERERERERERERE=\nextension\n",
        "o\n99999999999999999999\nERERERERERERERERERERERERERERERERERERERERERE=\n",
        "o\n\u0661\nERERERERERERERERERERERERERERERERERERERERERE=\n",
    ],
)
def test_a_malformed_checkpoint_is_refused(text: str) -> None:
    """Exactly one text says one thing."""
    with pytest.raises(ProofRefused):
        Checkpoint.from_text(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\tb", "a\u2003b", "a\nb"])
def test_key_names_that_notes_forbid_are_refused(name: str) -> None:
    """A name must survive a signature line."""
    with pytest.raises(KeyRefused):
        LogSigner.from_seed(name, b"\x01" * 32)


def test_a_verifier_key_with_another_keys_id_is_refused() -> None:
    """The id is computed, never believed."""
    name, _, key = SIGNER.verifier.vkey.split("+", 2)
    with pytest.raises(KeyRefused, match="another key"):
        LogVerifier.from_vkey(f"{name}+00000000+{key}")


@pytest.mark.parametrize("vkey", ["", "a", "a+b", "a+b+c", "a+00000000+Ag=="])
def test_a_malformed_verifier_key_is_refused(vkey: str) -> None:
    """Malformed is a refusal, never a leaked ValueError."""
    with pytest.raises(KeyRefused):
        LogVerifier.from_vkey(vkey)


def test_a_key_file_is_read_as_pem_or_seed_and_only_when_private(tmp_path: Path) -> None:
    """Both forms give the same key; a file open to others is refused."""
    key = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
    pem, seed = tmp_path / "log.pem", tmp_path / "log.seed"
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    seed.write_bytes(b"\x07" * 32)
    for path in (pem, seed):
        path.chmod(0o600)
        assert LogSigner.from_file(SIGNER.name, path).verifier == SIGNER.verifier
        path.chmod(0o640)
        with pytest.raises(KeyRefused, match="open to others"):
            LogSigner.from_file(SIGNER.name, path)
    with pytest.raises(KeyRefused, match="cannot be read"):
        LogSigner.from_file(SIGNER.name, tmp_path / "absent")


def test_a_key_of_another_kind_is_refused() -> None:
    """Only Ed25519 signs here."""
    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(KeyRefused, match="not an Ed25519"):
        LogSigner.from_pem("a", pem)
    with pytest.raises(KeyRefused):
        LogSigner.from_pem("a", b"-----BEGIN nonsense")
    with pytest.raises(KeyRefused):
        LogSigner.from_seed("a", b"short")


def test_a_signer_does_not_show_its_key() -> None:
    """The private key is in no text form of the signer."""
    assert (b"\x07" * 32).hex() not in repr(SIGNER) + str(SIGNER)
