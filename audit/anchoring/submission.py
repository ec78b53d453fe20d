"""C2SP tlog-witness as text: what a log sends to `add-checkpoint`.

Pure.  Three parts: the size that the witness cosigned last, the proof that the new head extends it, and the new head as
a signed note.  Parsing accepts exactly the bytes that writing produces.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Self

from audit.checkpoint import decode_base64, parse_decimal, split_note
from audit.errors import ProofRefused
from audit.merkle import HASH_BYTES

SIZE_TYPE = "text/x.tlog.size"
"""Media type of a 409 that says at which size the witness is."""
MAX_SUBMISSION_BYTES = 2**17
MAX_PROOF_LEN = 63


@dataclass(frozen=True, slots=True)
class Submission:
    """One head for one witness."""

    old_size: int
    proof: tuple[bytes, ...]
    note: str

    def to_text(self) -> str:
        """Write the body of the request."""
        hashes = "".join(f"{base64.b64encode(digest).decode()}\n" for digest in self.proof)
        return f"old {self.old_size}\n{hashes}\n{self.note}"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse the body of a request.

        Raises:
            ProofRefused: malformed; says which part.
        """
        if len(text) > MAX_SUBMISSION_BYTES:
            raise ProofRefused("the submission is too long")
        head, separator, note = text.partition("\n\n")
        lines = head.split("\n")
        if not separator or not lines[0].startswith("old "):
            raise ProofRefused("a submission is an old size, proof lines, an empty line and a checkpoint")
        old_size = parse_decimal(lines[0].removeprefix("old "), "the old size")
        if len(lines) - 1 > MAX_PROOF_LEN:
            raise ProofRefused(f"a consistency proof has at most {MAX_PROOF_LEN} lines")
        proof = tuple(decode_base64(line, "a line of the proof") for line in lines[1:])
        if any(len(digest) != HASH_BYTES for digest in proof):
            raise ProofRefused("a line of the proof is no SHA-256 hash")
        split_note(note)
        return cls(old_size, proof, note)


def parse_size_answer(body: bytes) -> int:
    """Parse the body of a 409 of that media type."""
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError as error:
        raise ProofRefused("the witness's size is not text") from error
    if not text.endswith("\n"):
        raise ProofRefused("the witness's size is no line")
    return parse_decimal(text.removesuffix("\n"), "the witness's size")
