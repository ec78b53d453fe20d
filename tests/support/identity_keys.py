"""Key records, pepper and moment that the identity tests share."""

from __future__ import annotations

from typing import Any

from appliance.identity.api_keys import MintedKey, Pepper, secret_digest
from appliance.identity.key_record import KeyRecord

PEPPER = Pepper(b"p" * 32)
NOW_US = 1_800_000_000_000_000
HOUR_US = 3_600_000_000


def make_record(key: MintedKey, **changes: Any) -> KeyRecord:
    """The record of a minted key, valid for an hour around now."""
    fields: dict[str, Any] = {
        "id": key.key_id,
        "env": key.env,
        "hmac": secret_digest(PEPPER, key.secret),
        "pepper_id": PEPPER.id,
        "owner": "ada",
        "kind": "User",
        "tenant": "plant",
        "roles": ("developer",),
        "clearance": 2,
        "not_before_us": NOW_US - HOUR_US,
        "expires_at_us": NOW_US + HOUR_US,
    }
    return KeyRecord(**{**fields, **changes})


def bearer(key: MintedKey | str) -> tuple[bytes, bytes]:
    """The usual header."""
    text = key if isinstance(key, str) else key.unsafe_text
    return (b"authorization", b"Bearer " + text.encode())
