"""Signed tree heads: C2SP tlog-checkpoint as a C2SP signed-note with Ed25519.

Pure: text in, values out.  Laws: a note counts only if at least one *known* key signed it and every signature by a
known key is good; signatures by unknown keys are ignored, which is what lets a key rotate and a witness cosign;
parsing accepts exactly the bytes that writing produces.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from audit.errors import KeyRefused, ProofRefused
from audit.merkle import HASH_BYTES

_ED25519 = b"\x01"
_SEED_BYTES = 32
_KEY_ID_BYTES = 4
_SIGNATURE_PREFIX = "— "
_MAX_NOTE_CHARS = 100_000
_MAX_SIGNATURES = 64


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log commits to: this many leaves, and this root over them."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note text that is signed, final newline included."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse a note text; extension lines are refused, because no monitor could audit them."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3] != "" or not lines[0]:  # noqa: PLR2004 - origin, size, root, final newline
            raise ProofRefused("a checkpoint has exactly three lines: origin, size, root")
        root = decode_base64(lines[2], "the checkpoint's root")
        if len(root) != HASH_BYTES:
            raise ProofRefused(f"the checkpoint's root has {len(root)} bytes; SHA-256 has {HASH_BYTES}")
        return cls(lines[0], parse_decimal(lines[1], "the checkpoint's size"), root)


@dataclass(frozen=True, slots=True)
class LogVerifier:
    """A log's public key under its name: all that an auditor needs."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """First four bytes of the hash that names this key in a signature line."""
        return key_id_of(self.name, _ED25519, self.public_key)

    @property
    def vkey(self) -> str:
        """Text form: `name+key id+base64(type, key)`."""
        return vkey_of(self.name, _ED25519, self.public_key)

    @classmethod
    def from_vkey(cls, vkey: str) -> Self:
        """Parse the text form; the key id must be the one that the key itself gives."""
        return cls(*parse_vkey(vkey, _ED25519, "only Ed25519 verifier keys are accepted"))

    def verifies(self, text: str, signature: bytes) -> bool:
        """Tell whether this key made this signature over this text."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True

    def open(self, note: str) -> Checkpoint:
        """Return the checkpoint that this key signed, or raise."""
        return open_checkpoint(note, [self])


class LogSigner:
    """A log's private key under its name; it signs what it is given and remembers nothing.

    That no two signed checkpoints contradict each other is the writer's duty: it signs only what extends the head.
    """

    __slots__ = ("_private_key", "verifier")

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        check_key_name(name)
        self._private_key = private_key
        self.verifier = LogVerifier(name, private_key.public_key().public_bytes_raw())

    @classmethod
    def from_seed(cls, name: str, seed: bytes) -> Self:
        """Use a 32-byte Ed25519 seed."""
        if len(seed) != _SEED_BYTES:
            raise KeyRefused(f"an Ed25519 seed has {_SEED_BYTES} bytes, this one {len(seed)}")
        return cls(name, Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_pem(cls, name: str, pem: bytes, password: bytes | None = None) -> Self:
        """Use a PKCS#8 PEM file's content."""
        return cls(name, ed25519_from_pem(pem, "the log key", password))

    @classmethod
    def from_file(cls, name: str, path: Path) -> Self:
        """Read a key file, PEM or raw 32-byte seed; others must not be able to read it."""
        try:
            mode = path.stat().st_mode
            material = path.read_bytes()
        except OSError as error:
            raise KeyRefused(f"the log key {path} cannot be read: {error.strerror}") from error
        if mode & 0o077:
            raise KeyRefused(f"the log key {path} is open to others", hint="chmod 600")
        return cls.from_pem(name, material) if material.startswith(b"-----BEGIN") else cls.from_seed(name, material)

    @property
    def name(self) -> str:
        """The log's origin."""
        return self.verifier.name

    def signature_line(self, text: str) -> str:
        """One signature line over the note text."""
        return signature_line(self.name, self.verifier.key_id, self._private_key.sign(text.encode()))


def ed25519_from_pem(pem: bytes, what: str, password: bytes | None = None) -> Ed25519PrivateKey:
    """Read a PKCS#8 PEM file's content; `what` names the key in a refusal."""
    try:
        private_key = load_pem_private_key(pem, password)
    except (ValueError, TypeError) as error:
        raise KeyRefused(f"{what} is not a readable PEM private key") from error
    if not isinstance(private_key, Ed25519PrivateKey):
        raise KeyRefused(f"{what} is not an Ed25519 key")
    return private_key


def sign_checkpoint(checkpoint: Checkpoint, signers: Sequence[LogSigner]) -> str:
    """Return the signed note; several signers while a key rotates."""
    text = checkpoint.text()
    return f"{text}\n{''.join(signer.signature_line(text) for signer in signers)}"


def open_checkpoint(note: str, verifiers: Sequence[LogVerifier]) -> Checkpoint:
    """Return the checkpoint that known keys signed.

    1. split text from signature lines at the last empty line; 2. ignore lines by unknown keys; 3. every line by a
    known key must verify; 4. at least one must be there; 5. the origin must be the name of a key that signed.
    """
    text, lines = split_note(note)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    signed_by: set[str] = set()
    for name, key_id, signature in lines:
        verifier = known.get((name, key_id))
        if verifier is None:
            continue
        if not verifier.verifies(text, signature):
            raise ProofRefused(f"the signature by {name} does not verify")
        signed_by.add(name)
    if not signed_by:
        raise ProofRefused("no known key signed this checkpoint", hint="is it the right verifier key?")
    checkpoint = Checkpoint.from_text(text)
    if checkpoint.origin not in signed_by:
        raise ProofRefused(f"the origin {checkpoint.origin!r} is not the name of a key that signed")
    return checkpoint


def signature_line(name: str, key_id: bytes, signature: bytes) -> str:
    """Write one signature line of a note."""
    return f"{_SIGNATURE_PREFIX}{name} {base64.b64encode(key_id + signature).decode()}\n"


def key_id_of(name: str, signature_type: bytes, public_key: bytes) -> bytes:
    """Name a key in a signature line: by key name, kind of signature and key."""
    return sha256(name.encode() + b"\n" + signature_type + public_key).digest()[:_KEY_ID_BYTES]


def vkey_of(name: str, signature_type: bytes, public_key: bytes) -> str:
    """Write a key in its text form."""
    encoded = base64.b64encode(signature_type + public_key).decode()
    return f"{name}+{key_id_of(name, signature_type, public_key).hex()}+{encoded}"


def parse_vkey(vkey: str, signature_type: bytes, otherwise: str) -> tuple[str, bytes]:
    """Return name and Ed25519 key of a text form; one of another kind of signature is refused in these words."""
    parts = vkey.strip().split("+", 2)  # base64 may contain '+', a name and a key id cannot
    if len(parts) != 3:  # noqa: PLR2004 - name, key id, key
        raise KeyRefused("a verifier key has three parts joined by '+'")
    name, key_id, encoded = parts
    check_key_name(name)
    try:
        material = decode_base64(encoded, "the verifier key")
    except ProofRefused as error:
        raise KeyRefused(error.what) from error
    if material[:1] != signature_type or len(material) != 1 + _SEED_BYTES:
        raise KeyRefused(otherwise)
    right_id = key_id_of(name, signature_type, material[1:]).hex()
    if right_id != key_id:
        raise KeyRefused(f"the key id {key_id} belongs to another key", hint=f"this key has {right_id}")
    return name, material[1:]


def split_note(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """Split a signed note into its text and its `(name, key id, signature)` lines; verifies nothing."""
    if len(note) > _MAX_NOTE_CHARS:
        raise ProofRefused(f"a note of {len(note)} characters is too long")
    if any(character < " " and character != "\n" for character in note) or not is_utf8(note):
        raise ProofRefused("a note is UTF-8 without control characters")
    body, separator, block = note.rpartition("\n\n")
    if not separator or not body or not block.endswith("\n"):
        raise ProofRefused("a note is text, an empty line and signature lines")
    rows = block.removesuffix("\n").split("\n")
    if len(rows) > _MAX_SIGNATURES:
        raise ProofRefused(f"a note with {len(rows)} signatures has too many")
    return body + "\n", [_parse_signature_line(row) for row in rows]


def _parse_signature_line(row: str) -> tuple[str, bytes, bytes]:
    parts = row.removeprefix(_SIGNATURE_PREFIX).split(" ")
    if not row.startswith(_SIGNATURE_PREFIX) or len(parts) != 2:  # noqa: PLR2004 - name, signature
        raise ProofRefused("a signature line is an em dash, a name and a signature")
    name, encoded = parts
    blob = decode_base64(encoded, "a signature")
    if not name or len(blob) <= _KEY_ID_BYTES:
        raise ProofRefused("a signature line without name or signature")
    return name, blob[:_KEY_ID_BYTES], blob[_KEY_ID_BYTES:]


def check_key_name(name: str) -> None:
    """Refuse a key name that signed-note does not allow."""
    unwanted = any(character.isspace() or character < " " or character == "+" for character in name)
    if not name or unwanted or not is_utf8(name):
        raise KeyRefused(f"the key name {name!r} must be non-empty, without spaces and '+'")


def is_utf8(text: str) -> bool:
    """Tell whether the text has bytes at all: a lone surrogate has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode_base64(text: str, what: str) -> bytes:
    """Standard base64, strictly: one text per value, so that no bit of a note is without meaning."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProofRefused(f"{what} is not base64") from error
    if base64.b64encode(decoded).decode() != text:
        raise ProofRefused(f"{what} is not in the one canonical base64 form")
    return decoded


def parse_decimal(text: str, what: str) -> int:
    """A non-negative decimal without leading zeroes, at most 2**63 - 1."""
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0") or len(text) > 19:  # noqa: PLR2004
        raise ProofRefused(f"{what} is not a plain decimal number")
    value = int(text)
    if value >= 1 << 63:
        raise ProofRefused(f"{what} is too large")
    return value
