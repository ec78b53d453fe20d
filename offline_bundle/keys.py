"""ECDSA keys: a closed list of two curves, each with the one hash that belongs to it.

A key's id is the SHA-256 of its SubjectPublicKeyInfo in PEM, final newline included: what `openssl ec -pubout |
sha256sum` prints, and the `hint` of an OpenSSF model signature.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Protocol, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from offline_bundle.errors import KeyRefused

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {"secp256r1": hashes.SHA256, "secp384r1": hashes.SHA384}
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SCALAR_BYTES = 48
_CURVE_HINT = "make an ECDSA key on P-256 or P-384"


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key; equal when its id is equal."""

    key_id: str
    pem: str = field(compare=False, repr=False)
    _public_key: ec.EllipticCurvePublicKey = field(compare=False, repr=False)

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Read a SubjectPublicKeyInfo PEM; the id is that of its canonical text."""
        try:
            public_key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyRefused("not a readable PEM public key", hint=_CURVE_HINT) from error
        return cls.from_public_key(public_key)

    @classmethod
    def from_public_key(cls, public_key: object) -> Self:
        """Take a key of the `cryptography` package, if its curve is on the list."""
        if not isinstance(public_key, ec.EllipticCurvePublicKey) or public_key.curve.name not in _HASHES:
            raise KeyRefused("the key is not on an accepted curve", hint=_CURVE_HINT)
        pem = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return cls(sha256(pem).hexdigest(), pem.decode("ascii"), public_key)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Tell whether this key made this DER signature over this message."""
        try:
            self._public_key.verify(signature, message, ec.ECDSA(_hash_of(self._public_key.curve)))
        except InvalidSignature:
            return False
        return True


class Signer(Protocol):
    """Whatever holds a private key: a file here, a hardware token elsewhere."""

    @property
    def verifying_key(self) -> VerifyingKey:
        """The public half."""
        ...

    def sign(self, message: bytes) -> bytes:
        """A DER ECDSA signature over the message, hashed as the curve demands."""
        ...


class SigningKey:
    """A private key in memory.  Signs deterministically (RFC 6979): the same message gives the same bytes."""

    __slots__ = ("_private_key", "_verifying_key")

    def __init__(self, private_key: object) -> None:
        if not isinstance(private_key, ec.EllipticCurvePrivateKey):
            raise KeyRefused("not an elliptic curve private key", hint=_CURVE_HINT)
        self._private_key = private_key
        self._verifying_key = VerifyingKey.from_public_key(private_key.public_key())

    @classmethod
    def from_pem(cls, pem: bytes, password: bytes | None = None) -> Self:
        """Read a PEM private key."""
        try:
            private_key = load_pem_private_key(pem, password)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            hint = "is it an unencrypted PEM file?" if password is None else "is it the right password?"
            raise KeyRefused("not a readable PEM private key", hint=hint) from error
        return cls(private_key)

    @classmethod
    def from_file(cls, path: Path, password: bytes | None = None) -> Self:
        """Read a key file that nobody but its owner may read."""
        try:
            mode, pem = path.stat().st_mode, path.read_bytes()
        except OSError as error:
            raise KeyRefused(
                f"the key {path} cannot be read: {error.strerror}", hint="check its path and owner"
            ) from error
        if mode & 0o077:
            raise KeyRefused(f"the key {path} is open to others", hint=f"chmod 600 {path}")
        return cls.from_pem(pem, password)

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> Self:
        """Make a new P-256 key; 16 bytes more than the order has keep the choice even."""
        number = int.from_bytes(random_bytes(_SCALAR_BYTES))
        return cls(ec.derive_private_key(number % (_P256_ORDER - 1) + 1, ec.SECP256R1()))

    @property
    def verifying_key(self) -> VerifyingKey:
        """The public half."""
        return self._verifying_key

    def sign(self, message: bytes) -> bytes:
        """A DER ECDSA signature over the message."""
        algorithm = ec.ECDSA(_hash_of(self._private_key.curve), deterministic_signing=True)
        return self._private_key.sign(message, algorithm)

    def unsafe_private_pem(self, password: bytes | None = None) -> bytes:
        """The private key itself, in the clear without a password; for the file that keeps it and nothing else."""
        encryption = BestAvailableEncryption(password) if password else NoEncryption()
        return self._private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _hash_of(curve: ec.EllipticCurve) -> hashes.HashAlgorithm:
    return _HASHES[curve.name]()
