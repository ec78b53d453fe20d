"""A commitment is HMAC-SHA256 over the content, under a key derived from the subject's key, the request and the phase.

Pure.  So two equal prompts have unrelated commitments, and nobody can try out guesses without the key.  It says nothing
about the content, its length included.

Marks are short pieces of such HMACs over growing parts of a content: who has the key and another content can say from
which part on the two differ, without the first one.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from audit.subject_keys.derivation import derive_key


@dataclass(frozen=True, slots=True)
class Commitment:
    """What a leaf may say about content."""

    key_id: str
    hmac_hex: str


MARK_BYTES = 3
"""Two contents that differ have the same mark once in 16 million; the commitment to the whole decides, not a mark."""


def content_hmac(subject_key: bytes, request_id: str, phase: str, content: bytes) -> str:
    """Return the hexadecimal HMAC; request and phase are length-prefixed, so they cannot run into each other."""
    return hmac.new(_phase_key(subject_key, request_id, phase), content, sha256).hexdigest()


def content_marks(subject_key: bytes, request_id: str, phase: str, parts: Iterable[bytes]) -> bytes:
    """Return `MARK_BYTES` for each part, over it and all parts before; the caller's parts end where they say."""
    running = hmac.new(_phase_key(subject_key, request_id, phase), digestmod=sha256)
    marks = bytearray()
    for part in parts:
        running.update(part)
        marks += running.digest()[:MARK_BYTES]  # of a copy: the running one goes on
    return bytes(marks)


def _phase_key(subject_key: bytes, request_id: str, phase: str) -> bytes:
    context = b"".join(len(part).to_bytes(4, "big") + part for part in (request_id.encode(), phase.encode()))
    return derive_key(subject_key, b"cloister commitment v1" + context)
