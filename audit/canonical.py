"""One byte form for a JSON value (RFC 8785), so that a digest over it means the value.

Pure.
"""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from audit.errors import AuditRefused
from audit.event import JsonValue


def canonical_json(value: JsonValue) -> bytes:
    """Give the bytes.

    Raises:
        AuditRefused: the value has no one JSON form.
    """
    plain: Any = value
    try:
        return rfc8785.dumps(plain)
    except rfc8785.CanonicalizationError as error:
        raise AuditRefused(f"no one JSON form: {error}") from error


def digest_of(value: JsonValue) -> str:
    """Give the SHA-256 of those bytes as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
