"""What the key-encryption key does: it wraps subject keys with AES-256-GCM, and turns a subject's name into a mark.

Invariants: a wrapped key is bound to its own id, so one put in another's place does not unwrap; a mark names the
subject to the holder of the key alone.  Never: a file, a key in an error.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from audit.errors import DAMAGE_HINT, AuditCorrupt
from audit.subject_keys.derivation import KEY_BYTES, derive_key

_NONCE_BYTES = 12
_KEY_ID_BYTES = 16
_CHECK_ID = "key check"


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A key in the clear: in memory only."""

    key_id: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key as it may lie in a file; None where a damaged row has nothing."""

    key_id: str
    nonce: bytes | None
    wrapped: bytes | None


class KeyEncryption:
    """The uses of one key-encryption key."""

    def __init__(self, key_encryption_key: bytes) -> None:
        self._wrapping = AESGCM(derive_key(key_encryption_key, b"cloister subject key wrapping v1"))
        self._mark_key = derive_key(key_encryption_key, b"cloister subject mark v1")

    def mark(self, subject_id: str) -> bytes:
        """Return what stands for a subject in the file."""
        return hmac.digest(self._mark_key, subject_id.encode(), "sha256")

    def new_key(self) -> tuple[SubjectKey, WrappedKey]:
        """Draw a key, and wrap it."""
        key = SubjectKey(os.urandom(_KEY_ID_BYTES).hex(), os.urandom(KEY_BYTES))
        return key, self._wrap(key)

    def new_check_value(self) -> WrappedKey:
        """Wrap a key of no other use than to tell the right key-encryption key before the first subject comes."""
        return self._wrap(SubjectKey(_CHECK_ID, os.urandom(KEY_BYTES)))

    def require_own(self, nonce: bytes | None, wrapped: bytes | None, path: Path) -> None:
        """Refuse the check value of another key-encryption key; `path` is named in the error."""
        self.unwrap(WrappedKey(_CHECK_ID, nonce, wrapped), path)

    def unwrap(self, stored: WrappedKey, path: Path) -> SubjectKey:
        """Return the key in the clear; `path` is named in the error.

        Raises:
            AuditCorrupt: altered, moved, incomplete, or wrapped by another key.
        """
        what = "the check value" if stored.key_id == _CHECK_ID else f"subject key {stored.key_id}"
        if not isinstance(stored.nonce, bytes) or not isinstance(stored.wrapped, bytes):
            raise AuditCorrupt(None, f"{what} is gone, but not marked destroyed", hint=DAMAGE_HINT, path=path)
        try:
            key = self._wrapping.decrypt(stored.nonce, stored.wrapped, stored.key_id.encode())
        except (InvalidTag, ValueError) as error:  # the latter for a nonce of no possible length
            hint = "is it the right key-encryption key? If so, keep the file for the auditor and restore a copy"
            raise AuditCorrupt(None, f"{what} cannot be unwrapped", hint=hint, path=path) from error
        return SubjectKey(stored.key_id, key)

    def _wrap(self, key: SubjectKey) -> WrappedKey:
        nonce = os.urandom(_NONCE_BYTES)
        return WrappedKey(key.key_id, nonce, self._wrapping.encrypt(nonce, key.key, key.key_id.encode()))
