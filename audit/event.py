"""What is recorded, and what the recorder gives back.

Invariants: an event is metadata and commitments, never content; a leaf is one canonical JSON object (RFC 8785) of at
most 65,535 bytes; a receipt exists only for a leaf that is durable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"

MAX_LEAF_BYTES = 65_535
"""The uint16 length prefix of a C2SP tlog-tiles entry bundle."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, before it has a place in the log."""

    kind: str
    """`subject:action`; the owner of the kinds is the caller, the log checks the shape only."""
    ts_us: int
    """UTC, microseconds since 1970-01-01."""
    monotonic_ns: int
    actor: str
    """Who caused it: a principal's id, or `system`."""
    role: str
    """The actor's roles, comma-separated in alphabetical order, or empty."""
    tenant: str
    subject: str
    """What it happened to: a request id, a model root, a key id."""
    facts: Mapping[str, JsonValue]
    """The rest; keys are snake_case, floats must be finite."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof of place: this leaf is durable at this index."""

    index: int
    leaf_hash: str
    """RFC 6962 leaf hash, 64 hexadecimal digits."""
    tree_size: int
    """Size of the tree whose signed checkpoint was committed together with the leaf."""


@dataclass(frozen=True, slots=True)
class SealedContent:
    """Ciphertext that is stored beside a leaf, in the same commit; the leaf gets its digest."""

    phase: str
    """Which of a request's contents this is: `prompt`, `output`."""
    key_id: str
    """Id of the subject key that seals it."""
    nonce: bytes
    ciphertext: bytes


class Pruned(StrEnum):
    """What can be gone below a floor."""

    CONTENT = "content"
    LEAF = "leaf"


@dataclass(frozen=True, slots=True)
class Floor:
    """Below `minimum_index` this is gone from the store; the signed tree still counts it."""

    what: Pruned
    minimum_index: int
