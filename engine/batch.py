"""One step's plan as a value: which tokens of which sequences are computed, over which pages.

A plan is made by the scheduler, which changes nothing by making it; inputs are built from it; commit applies it.
Prefill, chunk, decode and recompute after preemption are only token counts here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScheduledChunk:
    """The tokens of one sequence that this step computes.

    Index ranges of the sequence:  [0, start) has its KV in pages already;  [start, start + len(token_ids)) is
    computed now;  `page_ids` covers [0, start + len(token_ids)).
    """

    request_id: str
    token_ids: tuple[int, ...]
    start: int
    page_ids: tuple[int, ...]
    samples: bool
    """True when the chunk ends at the sequence's last known token: its last logits choose the next one."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The chunks of one step, in a fixed order."""

    chunks: tuple[ScheduledChunk, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens computed in this step."""
        return sum(len(chunk.token_ids) for chunk in self.chunks)
