"""Indexes that no entry has."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class IndexGaps:
    """Walks indexes in order; `expected` is the next that there must be."""

    expected: int
    num_missing: int = 0
    findings: list[str] = field(default_factory=list)

    def accept(self, index: int) -> None:
        """Take the next index that is there."""
        if index != self.expected:
            self.num_missing += index - self.expected
            self.findings.append(f"entries {self.expected} to {index - 1} are missing")
        self.expected = index + 1

    def end(self, last_index: int) -> None:
        """Say which index is the last that there must be."""
        if self.expected <= last_index:
            self.accept(last_index + 1)
