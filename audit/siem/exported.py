"""A leaf on its way out, and the log that it comes from.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from audit.event import JsonValue
from audit.leaf import Leaf, decode_leaf


@dataclass(frozen=True, slots=True)
class LogName:
    """Whose events these are."""

    origin: str
    """The log's name in its checkpoints."""
    version: str
    """Of the product that sends them."""


@dataclass(frozen=True, slots=True)
class ExportedLeaf:
    """One leaf with the two values that tie its copies to the log."""

    leaf: Leaf
    leaf_bytes: bytes
    leaf_hash: str
    """RFC 6962 leaf hash, 64 hexadecimal digits."""

    @classmethod
    def decode(cls, leaf_bytes: bytes, leaf_hash: bytes) -> ExportedLeaf:
        """Decode a stored leaf.

        Raises:
            ProofRefused: not the one canonical form of a leaf.
        """
        return cls(decode_leaf(leaf_bytes), leaf_bytes, leaf_hash.hex())

    @property
    def index(self) -> int:
        """Place in the log."""
        return self.leaf.index

    def text_fact(self, name: str) -> str | None:
        """Give a fact that is text and not empty."""
        value: JsonValue = self.leaf.event.facts.get(name)
        return value if isinstance(value, str) and value else None

    def count_fact(self, name: str) -> int | None:
        """Give a fact that is a whole number."""
        value: JsonValue = self.leaf.event.facts.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None
