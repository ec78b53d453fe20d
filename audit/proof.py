"""One entry's proof as a text file: C2SP tlog-proof, `c2sp.org/tlog-proof@v1`.

Pure.  It proves that a leaf stands at an index under a signed checkpoint; with the leaf's bytes and the log's
verifier key it needs nothing else.  `extra` is carried, never trusted.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from audit.checkpoint import Checkpoint, LogVerifier, decode_base64, open_checkpoint, parse_decimal, split_note
from audit.errors import ProofRefused
from audit.merkle import HASH_BYTES, leaf_hash, verify_inclusion

_MAGIC = "c2sp.org/tlog-proof@v1"
_MAX_PATH_LEN = 63


@dataclass(frozen=True, slots=True)
class EntryProof:
    """Where a leaf stands, the path to the root, and the signed checkpoint with that root."""

    index: int
    path: tuple[bytes, ...]
    checkpoint_note: str
    extra: bytes | None = None

    def to_text(self) -> str:
        """Write the `.tlog-proof` file."""
        extra = [] if self.extra is None else [f"extra {base64.b64encode(self.extra).decode()}"]
        hashes = [base64.b64encode(digest).decode() for digest in self.path]
        return "\n".join([_MAGIC, *extra, f"index {self.index}", *hashes, "", self.checkpoint_note])

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse a `.tlog-proof` file; malformed text is refused with its line's meaning."""
        head, separator, note = text.partition("\n\n")
        if not separator:
            raise ProofRefused("a proof is a header, an empty line and a checkpoint")
        lines = head.split("\n")
        if lines.pop(0) != _MAGIC:
            raise ProofRefused(f"a proof begins with {_MAGIC}")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "), "the proof's extra data")
        if not lines or not lines[0].startswith("index "):
            raise ProofRefused("a proof names its index")
        index = parse_decimal(lines.pop(0).removeprefix("index "), "the proof's index")
        path = tuple(decode_base64(line, "a hash of the proof") for line in lines)
        if len(path) > _MAX_PATH_LEN or any(len(digest) != HASH_BYTES for digest in path):
            raise ProofRefused("the proof's path is not a list of SHA-256 hashes")
        split_note(note)
        return cls(index, path, note, extra)

    def verify(self, leaf_bytes: bytes, verifiers: Sequence[LogVerifier]) -> Checkpoint:
        """Return the signed checkpoint that includes these very bytes at `index`, or raise.

        The caller still owes: is this checkpoint consistent with the newest one known?
        """
        return self.verify_hash(leaf_hash(leaf_bytes), verifiers)

    def verify_hash(self, digest: bytes, verifiers: Sequence[LogVerifier]) -> Checkpoint:
        """The same for whoever has the leaf's hash only, as a receipt holds it."""
        checkpoint = open_checkpoint(self.checkpoint_note, verifiers)
        verify_inclusion(digest, self.index, checkpoint.size, self.path, checkpoint.root)
        return checkpoint
