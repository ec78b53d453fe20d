"""Who is asking, after the credential was proven: the only form in which identity travels further."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or service; every field comes from the credential's own record, none from the request."""

    id: str
    kind: Literal["User", "Service"]
    tenant: str
    roles: tuple[str, ...]
    """Sorted; empty allows nothing."""
    clearance: int
    key_id: str
    """Public id of the credential that proved it; never its secret."""
