"""Which kinds open something and which end it; the caller's knowledge, handed to reader and verifier."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pairing:
    """Law: a subject is opened once and ended at most once; only what is still running has no end."""

    opening: str
    terminals: frozenset[str]
    opening_index_fact: str | None = None
    """Fact of an ending leaf that says where its opening stands: it may have been pruned since."""
