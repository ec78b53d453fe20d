"""Checkpoints from elsewhere, held against the log as its tree grows again before our eyes.

Pure.  A log that lacks a known head was cut or rolled back; one that has another root at that size was forked.
"""

from __future__ import annotations

from collections.abc import Sequence

from audit.checkpoint import Checkpoint, LogVerifier, open_checkpoint
from audit.errors import ProofRefused
from audit.report import FindingList, Place


class KnownHeads:
    """Every known checkpoint, smallest first; each is asked about once."""

    def __init__(self, notes: Sequence[str], verifiers: Sequence[LogVerifier], findings: FindingList) -> None:
        heads = [open_checkpoint(note, verifiers) for note in notes]
        names = {verifier.name for verifier in verifiers}
        for head in heads:
            if head.origin not in names:
                raise ProofRefused(f"the known checkpoint is of another log: {head.origin}")
        self._waiting: list[Checkpoint] = sorted(heads, key=lambda head: head.size, reverse=True)
        self._findings = findings
        self._last_good_size = 0

    def next_size(self) -> int | None:
        """Return the size at which the tree's root is wanted next."""
        return self._waiting[-1].size if self._waiting else None

    def compare(self, size: int, root: bytes) -> None:
        """Hold the computed root against every known head of this size."""
        agrees = False
        while self._waiting and self._waiting[-1].size == size:
            if self._waiting.pop().root == root:
                agrees = True  # and yet another one of this size may not: then two histories were signed
                continue
            self._findings.add(
                Place.FORK,
                self._last_good_size,
                f"at size {size} this log has another root than the known checkpoint: "
                f"an entry from {self._last_good_size} to {size - 1} is not what it was",
            )
        if agrees:
            self._last_good_size = size

    def pass_over(self, size: int) -> None:
        """Give up on heads up to this size: the tree there is not known, which is a finding of its own."""
        while self._waiting and self._waiting[-1].size <= size:
            self._waiting.pop()

    def leave_below(self, floor: int) -> list[int]:
        """Give up on heads below a floor of pruning, of which no tree can be grown any more; return their sizes."""
        left = [head.size for head in self._waiting if 0 < head.size < floor]
        self._waiting = [head for head in self._waiting if not 0 < head.size < floor]
        return sorted(left)

    def finish(self, num_leaves: int) -> None:
        """Report the heads that the log does not reach."""
        for known in self._waiting:
            self._findings.add(
                Place.TRUNCATED,
                num_leaves,
                f"the log ends after {num_leaves} entries, a signed checkpoint of {known.size} entries is known",
            )
        self._waiting.clear()
