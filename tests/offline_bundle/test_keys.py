"""Keys: two curves, one id, the same bytes twice."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from offline_bundle.errors import KeyRefused
from offline_bundle.keys import SigningKey, VerifyingKey


def pem_of(public_key) -> bytes:
    """A public key as a file holds it."""
    return public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda curve: curve.name)
def test_both_curves_sign_deterministically_and_verify(curve: ec.EllipticCurve) -> None:
    """RFC 6979: two signatures over one message are the same bytes."""
    key = SigningKey(ec.generate_private_key(curve))
    first, second = key.sign(b"message"), key.sign(b"message")
    assert first == second
    assert key.verifying_key.verifies(b"message", first)
    assert not key.verifying_key.verifies(b"massage", first)
    assert not key.verifying_key.verifies(b"message", first[:-1])
    assert not key.verifying_key.verifies(b"message", b"")


def test_key_id_is_the_digest_of_the_pem_that_openssl_prints(tmp_path: Path) -> None:
    """The id can be recomputed with two command lines and nothing of ours."""
    key = SigningKey.generate()
    path = tmp_path / "key.pem"
    path.write_bytes(key.unsafe_private_pem())
    printed = subprocess.run(["openssl", "ec", "-in", path, "-pubout"], capture_output=True, check=True).stdout
    assert hashlib.sha256(printed).hexdigest() == key.verifying_key.key_id
    assert VerifyingKey.from_pem(printed) == key.verifying_key


@pytest.mark.parametrize(
    "public_key",
    [
        ec.generate_private_key(ec.SECP521R1()).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        ed25519.Ed25519PrivateKey.generate().public_key(),
        rsa.generate_private_key(65537, 2048).public_key(),
    ],
    ids=["P-521", "secp256k1", "Ed25519", "RSA"],
)
def test_algorithms_outside_the_closed_list_are_refused(public_key) -> None:
    """A weaker or foreign verifier cannot be reached by bringing another kind of key."""
    with pytest.raises(KeyRefused, match="P-256 or P-384"):
        VerifyingKey.from_pem(pem_of(public_key))


@pytest.mark.parametrize("pem", [b"", b"hello", b"-----BEGIN PUBLIC KEY-----\n!!!\n-----END PUBLIC KEY-----\n"])
def test_damaged_pem_is_a_typed_refusal(pem: bytes) -> None:
    """No library error leaks."""
    with pytest.raises(KeyRefused):
        VerifyingKey.from_pem(pem)
    with pytest.raises(KeyRefused):
        SigningKey.from_pem(pem)


def test_private_key_file_open_to_others_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """The mode is checked before the key is used."""
    path = tmp_path / "key.pem"
    path.write_bytes(SigningKey.generate().unsafe_private_pem())
    path.chmod(0o640)
    with pytest.raises(KeyRefused, match="chmod 600"):
        SigningKey.from_file(path)
    path.chmod(0o600)
    assert SigningKey.from_file(path).verifying_key


def test_password_protected_key_needs_its_password() -> None:
    """A wrong or missing password is a refusal that says so."""
    key = SigningKey.generate()
    pem = key.unsafe_private_pem(b"correct")
    assert SigningKey.from_pem(pem, b"correct").verifying_key == key.verifying_key
    for password in (None, b"wrong"):
        with pytest.raises(KeyRefused):
            SigningKey.from_pem(pem, password)


def test_missing_key_file_is_a_typed_refusal(tmp_path: Path) -> None:
    """The path stands in the message."""
    with pytest.raises(KeyRefused, match="nothing-here"):
        SigningKey.from_file(tmp_path / "nothing-here")


def test_keys_depend_on_the_random_source_alone(make_key: Callable[[str], SigningKey]) -> None:
    """A seeded source gives the same key; two sources give two keys."""
    assert make_key("a").verifying_key == make_key("a").verifying_key
    assert make_key("a").verifying_key != make_key("b").verifying_key
    assert SigningKey.generate(os.urandom).verifying_key != SigningKey.generate(os.urandom).verifying_key
