"""Checkpoints from elsewhere, held against the log as its tree grows again before our eyes.

Pure.  A log that lacks a known head was cut or rolled back; one that has another root at that size was forked.  The
largest known head that the log does have says from which entry on it may differ, the smallest one that it has not says
up to which: the entry itself can be named only where the other tree is at hand (`divergence`).
"""

from __future__ import annotations

from collections.abc import Sequence

from audit.anchoring.evidence import Anchor, heads_of
from audit.checkpoint import Checkpoint, LogVerifier
from audit.errors import ProofRefused
from audit.report import FindingList, Place


class KnownHeads:
    """Every known checkpoint, smallest first; each is asked about once."""

    def __init__(self, anchors: Sequence[Anchor], verifiers: Sequence[LogVerifier], findings: FindingList) -> None:
        heads = heads_of(anchors, verifiers)
        names = {verifier.name for verifier in verifiers}
        for head, _ in heads:
            if head.origin not in names:
                raise ProofRefused(f"the known checkpoint is of another log: {head.origin}")
        self._waiting: list[tuple[Checkpoint, Anchor]] = heads[::-1]
        self._findings = findings
        self._good_sizes = [0]
        """Known heads that the log has, ascending."""

    def next_size(self) -> int | None:
        """Return the size at which the tree's root is wanted next."""
        return self._waiting[-1][0].size if self._waiting else None

    def compare(self, size: int, root: bytes) -> None:
        """Hold the computed root against every known head of this size."""
        while self._waiting and self._waiting[-1][0].size == size:
            known, anchor = self._waiting.pop()
            if known.root == root:
                self._good_sizes.append(size)
                continue
            start = max(good for good in self._good_sizes if good < size or size == 0)
            self._findings.add(
                Place.FORK,
                start,
                f"at size {size} this log has another root than the known checkpoint{_from(anchor)}: "
                f"an entry from {start} to {size - 1} is not what it was",
            )

    def pass_over(self, size: int) -> None:
        """Give up on heads up to this size: the tree there is not known, which is a finding of its own."""
        while self._waiting and self._waiting[-1][0].size <= size:
            self._waiting.pop()

    def leave_below(self, floor: int) -> list[int]:
        """Give up on heads below a floor of pruning, of which no tree can be grown any more; return their sizes."""
        left = [head.size for head, _ in self._waiting if 0 < head.size < floor]
        self._waiting = [pair for pair in self._waiting if not 0 < pair[0].size < floor]
        return sorted(left)

    def finish(self, num_leaves: int) -> None:
        """Report the newest head that the log does not reach."""
        if self._waiting:
            known, anchor = self._waiting[0]
            missing = f"entries {num_leaves} to {known.size - 1} are missing"
            how = "rolled back to that head" if self._good_sizes[-1] == num_leaves else "cut or rolled back"
            self._findings.add(
                Place.TRUNCATED,
                num_leaves,
                f"the log ends after {num_leaves} entries, a signed checkpoint of {known.size} entries is known"
                f"{_from(anchor)}: it was {how}; {missing}",
            )
        self._waiting.clear()


def _from(anchor: Anchor) -> str:
    return f" ({anchor.source})" if anchor.source else ""
