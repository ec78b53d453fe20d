"""One API key's record as a value: what the database keeps of a key, and what such a record can never be.

Invariant: a record that exists has an owner, a tenant, an end, sorted roles and a clearance there is; nothing else can
be made.  Never: the secret, or anything that shows its digest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from appliance.identity.api_keys import KEY_ID

MAX_CLEARANCE: Final = 4
_DIGEST_BYTES: Final = 32
_END_OF_TIME_US: Final = 2**53
"""In the year 2255; larger integers are not the same number to every reader."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key's record.  Times are UTC microseconds since 1970-01-01."""

    id: str
    env: str
    hmac: bytes = field(repr=False)
    """`api_keys.secret_digest` of the secret."""
    pepper_id: str
    owner: str
    """Id of the principal that the key proves."""
    kind: Literal["User", "Service"]
    tenant: str
    roles: tuple[str, ...]
    """Sorted; empty allows nothing."""
    clearance: int
    not_before_us: int
    expires_at_us: int
    """Every key ends; the key is dead at this very moment."""
    revoked_at_us: int | None = None
    last_used_day: int | None = None
    """Days since 1970-01-01, UTC; coarse on purpose, it is no movement profile."""

    def __post_init__(self) -> None:
        for name, holds in (
            ("id", KEY_ID.fullmatch(self.id) is not None),
            ("hmac", len(self.hmac) == _DIGEST_BYTES),
            ("owner", bool(self.owner)),
            ("kind", self.kind in {"User", "Service"}),
            ("tenant", bool(self.tenant)),
            ("roles", self.roles == tuple(sorted(set(self.roles)))),
            ("clearance", 0 <= self.clearance <= MAX_CLEARANCE),
            ("not_before_us", 0 <= self.not_before_us < _END_OF_TIME_US),
            ("expires_at_us", self.not_before_us < self.expires_at_us <= _END_OF_TIME_US),
        ):
            if not holds:
                raise ValueError(f"key record {self.id!a}: {name} is out of range")
