"""What witnesses say of a log: the newest head that enough of them cosigned.

Pure.  A cosignature is a second party's word that at its time this head was the largest one seen and extended all
before; entries beyond the newest such head have no such word yet, and the verdict says from which entry on.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from audit.anchoring.evidence import Anchor, heads_of
from audit.checkpoint import Checkpoint, LogVerifier
from audit.cosignature import Cosignature, CosignatureVerifier, cosignatures_of
from audit.errors import KeyRefused, ProofRefused


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many of which witnesses must have cosigned one head."""

    witnesses: tuple[CosignatureVerifier, ...]
    num_required: int

    def __post_init__(self) -> None:
        """Refuse a quorum that nobody can meet, or that anybody meets."""
        num_keys = len({witness.public_key for witness in self.witnesses})
        if num_keys != len(self.witnesses):
            raise KeyRefused("two of the witnesses have one key")
        if not 1 <= self.num_required <= num_keys:
            raise KeyRefused(f"a quorum of {self.num_required} cannot be had from {num_keys} witnesses")


@dataclass(frozen=True, slots=True)
class WitnessedHead:
    """A head that met the quorum."""

    checkpoint: Checkpoint
    cosignatures: tuple[Cosignature, ...]
    source: str

    def __str__(self) -> str:
        """One sentence for the verdict."""
        words = ", ".join(f"{one.verifier.name} at {_utc(one.at_s)}" for one in self.cosignatures)
        size = self.checkpoint.size
        return f"cosigned up to entry {size - 1} (size {size}) by {words}; what comes after it has no witness yet"


def newest_witnessed(
    anchors: Sequence[Anchor], verifiers: Sequence[LogVerifier], quorum: Quorum
) -> WitnessedHead | None:
    """Return the newest of these heads that met the quorum; None when none did.

    Raises:
        ProofRefused: a line by one of the witnesses' keys does not verify; names the file.
    """
    for head, anchor in reversed(heads_of(anchors, verifiers)):
        try:
            found = cosignatures_of(anchor.note, quorum.witnesses)
        except ProofRefused as error:
            raise ProofRefused(f"{anchor.source or 'a known checkpoint'}: {error.what}") from error
        if len(found) >= quorum.num_required:
            return WitnessedHead(head, found, anchor.source)
    return None


def _utc(at_s: int) -> str:
    try:
        return dt.datetime.fromtimestamp(at_s, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{at_s} seconds after 1970"
