"""A commitment is HMAC-SHA256 over the content, under a key derived from the subject's key, the request and the phase.

Pure.  So two equal prompts have unrelated commitments, and nobody can try out guesses without the key.  It says nothing
about the content, its length included.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256

from audit.subject_keys.derivation import derive_key


@dataclass(frozen=True, slots=True)
class Commitment:
    """What a leaf may say about content."""

    key_id: str
    hmac_hex: str


def content_hmac(subject_key: bytes, request_id: str, phase: str, content: bytes) -> str:
    """Return the hexadecimal HMAC; request and phase are length-prefixed, so they cannot run into each other."""
    context = b"".join(len(part).to_bytes(4, "big") + part for part in (request_id.encode(), phase.encode()))
    return hmac.new(derive_key(subject_key, b"cloister commitment v1" + context), content, sha256).hexdigest()
