"""A second party's word on a head: C2SP tlog-cosignature v1, Ed25519 with a time, as a line of the log's own note.

Pure: text, bytes and a time in, values out.  A cosignature says that at this second the head was the largest one that
the cosigner had seen of this log, and extended all that it had seen before.  Laws: a line counts only under a key that
the reader was given; a bad line under such a key refuses the whole note; whoever signs twice counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.checkpoint import (
    check_key_name,
    ed25519_from_pem,
    key_id_of,
    parse_vkey,
    signature_line,
    split_note,
    vkey_of,
)
from audit.errors import ProofRefused

_COSIGNATURE_V1 = b"\x04"
_TIME_BYTES = 8
_SIGNATURE_BYTES = 64
_MAX_TIME_S = 2**63 - 1


@dataclass(frozen=True, slots=True)
class CosignatureVerifier:
    """A witness's public key under its name."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """Names this key in a signature line; another one than the same key would have as a log's."""
        return key_id_of(self.name, _COSIGNATURE_V1, self.public_key)

    @property
    def vkey(self) -> str:
        """Text form."""
        return vkey_of(self.name, _COSIGNATURE_V1, self.public_key)

    @classmethod
    def from_vkey(cls, vkey: str) -> Self:
        """Parse the text form; a log's key is refused, since it signs something else."""
        return cls(*parse_vkey(vkey, _COSIGNATURE_V1, "this is no witness's key (Ed25519 cosignature/v1)"))

    def verify(self, text: str, signature: bytes) -> int:
        """Return the time, in seconds since 1970, at which this key cosigned this note text, or raise."""
        if len(signature) != _TIME_BYTES + _SIGNATURE_BYTES:
            raise ProofRefused(f"the cosignature by {self.name} has {len(signature)} bytes")
        at_s = int.from_bytes(signature[:_TIME_BYTES], "big")
        if at_s > _MAX_TIME_S:
            raise ProofRefused(f"the cosignature by {self.name} has no time that a clock can show")
        try:
            key = Ed25519PublicKey.from_public_bytes(self.public_key)
            key.verify(signature[_TIME_BYTES:], _cosigned_message(text, at_s))
        except InvalidSignature as error:
            raise ProofRefused(f"the cosignature by {self.name} does not verify") from error
        return at_s


@dataclass(frozen=True, slots=True)
class Cosignature:
    """One line that was verified."""

    verifier: CosignatureVerifier
    at_s: int
    """Seconds since 1970, by the witness's clock."""
    line: str


class Cosigner:
    """A witness's private key under its name; it cosigns what it is given and remembers nothing.

    That a head extends the last one it cosigned is the duty of whoever holds the witness's state.
    """

    __slots__ = ("_private_key", "verifier")

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        check_key_name(name)
        self._private_key = private_key
        self.verifier = CosignatureVerifier(name, private_key.public_key().public_bytes_raw())

    @classmethod
    def from_pem(cls, name: str, pem: bytes) -> Self:
        """Use a PKCS#8 PEM file's content."""
        return cls(name, ed25519_from_pem(pem, "the witness's key"))

    def cosign(self, text: str, at_s: int) -> Cosignature:
        """Cosign a note text as of a time in seconds since 1970."""
        signature = at_s.to_bytes(_TIME_BYTES, "big") + self._private_key.sign(_cosigned_message(text, at_s))
        return Cosignature(self.verifier, at_s, signature_line(self.verifier.name, self.verifier.key_id, signature))


def cosignatures_of(note: str, witnesses: Sequence[CosignatureVerifier]) -> tuple[Cosignature, ...]:
    """Return the newest good line of each of these witnesses, in their order; other lines are ignored.

    Raises:
        ProofRefused: the note is malformed, or a line by one of these keys does not verify.
    """
    text, lines = split_note(note)
    found: dict[bytes, Cosignature] = {}
    known = {(witness.name, witness.key_id): witness for witness in witnesses}
    for name, key_id, signature in lines:
        witness = known.get((name, key_id))
        if witness is None:
            continue
        at_s = witness.verify(text, signature)
        before = found.get(witness.public_key)
        if before is None or before.at_s < at_s:
            line = signature_line(name, key_id, signature)
            found[witness.public_key] = Cosignature(witness, at_s, line)
    return tuple(found[key] for key in dict.fromkeys(one.public_key for one in witnesses) if key in found)


def add_lines(note: str, cosignatures: Sequence[Cosignature]) -> str:
    """Add cosignatures to a note that lacks them; an older line by the same key gives way."""
    given = {(one.verifier.name, one.verifier.key_id) for one in cosignatures}
    text, lines = split_note(note)
    kept = [signature_line(*line) for line in lines if line[:2] not in given]
    return f"{text}\n{''.join(kept)}{''.join(one.line for one in cosignatures)}"


def _cosigned_message(text: str, at_s: int) -> bytes:
    return f"cosignature/v1\ntime {at_s}\n{text}".encode()
