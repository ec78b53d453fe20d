"""One key is used for one purpose: every other use derives a key of its own (HKDF-SHA256, RFC 5869).

Pure.  Keys have exactly 32 bytes; any other length is refused, never padded or hashed into shape.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from audit.errors import KeyRefused

KEY_BYTES = 32


def derive_key(key: bytes, purpose: bytes) -> bytes:
    """Return the key for a purpose; two purposes have unrelated keys."""
    if len(key) != KEY_BYTES:
        raise KeyRefused(f"a key has {KEY_BYTES} bytes, this one {len(key)}")
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose).derive(key)
