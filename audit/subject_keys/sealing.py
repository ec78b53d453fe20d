"""Content sealed under a subject's key: AES-256-GCM, so that it opens whole and unaltered, for its own request, or not.

Pure: the nonce is an argument.  Laws: the content key is another one than any commitment's (HKDF, own purpose); what
was sealed for one request and phase opens for no other (additional data: both, as canonical JSON); the 16 bytes of the
tag end the ciphertext.  A random nonce of 96 bits is safe for 2**32 contents of one subject (NIST SP 800-38D, 8.3).
"""

from __future__ import annotations

from dataclasses import dataclass

import rfc8785
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from audit.errors import DAMAGE_HINT, AuditCorrupt
from audit.subject_keys.derivation import derive_key

NONCE_BYTES = 12
TAG_BYTES = 16
_PURPOSE = b"cloister content v1"


@dataclass(frozen=True, slots=True)
class Sealed:
    """Content as it may lie beside a leaf."""

    key_id: str
    nonce: bytes
    ciphertext: bytes
    """With the tag at its end."""


def seal_content(subject_key: bytes, request_id: str, phase: str, content: bytes, nonce: bytes) -> bytes:
    """Return ciphertext and tag; a nonce is never used twice under one subject's key."""
    assert len(nonce) == NONCE_BYTES, f"a nonce has {NONCE_BYTES} bytes, this one {len(nonce)}"
    return _cipher(subject_key).encrypt(nonce, content, _bound_to(request_id, phase))


def open_content(subject_key: bytes, request_id: str, phase: str, sealed: Sealed) -> bytes:
    """Return the content.

    Raises:
        AuditCorrupt: altered, or sealed for another request, phase or subject.
    """
    try:
        return _cipher(subject_key).decrypt(sealed.nonce, sealed.ciphertext, _bound_to(request_id, phase))
    except (InvalidTag, ValueError) as error:  # the latter for a nonce of no possible length
        what = f"the sealed {phase} of {request_id} does not open under key {sealed.key_id}"
        raise AuditCorrupt(None, what, hint=DAMAGE_HINT) from error


def _cipher(subject_key: bytes) -> AESGCM:
    return AESGCM(derive_key(subject_key, _PURPOSE))


def _bound_to(request_id: str, phase: str) -> bytes:
    return rfc8785.dumps({"phase": phase, "request_id": request_id})
