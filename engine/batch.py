"""One step's plan as a value: which tokens of which sequences are computed, over which pages.

A plan is made by the scheduler, which changes nothing by making it; inputs are built from it; commit applies it.
Prefill, chunk, decode and recompute after preemption are only token counts here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from engine.request import SamplingParams, TokenLogprobs

if TYPE_CHECKING:
    from torch import Tensor


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


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """What the sampler needs beside one row of logits."""

    params: SamplingParams
    prompt_token_ids: Sequence[int]
    output_token_ids: Sequence[int]
    """Tokens generated so far; the one to choose now has position len(prompt) + len(output)."""


@dataclass(frozen=True, slots=True)
class SampledToken:
    """The sampler's answer for one row: a token, or an error that concerns this row alone."""

    token_id: int
    logprobs: TokenLogprobs | None = None
    """Set when the row's params ask for logprobs."""
    error: str | None = None
    """Stable code, e.g. "nan_logits"; then `token_id` is meaningless."""


class ModelRunner(Protocol):
    """Owner of the weights, the KV memory and the device."""

    def forward(self, batch: Batch) -> Tensor:
        """Compute the batch, write its KV into the pages it names.

        Returns:
            Logits, `[num_sampling_chunks, vocab_size] float32`, in the order of the chunks whose `samples` is true.
        """
        ...


class TokenSampler(Protocol):
    """Chooses tokens; holds no state between calls."""

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow]) -> tuple[SampledToken, ...]:
        """Choose one token per row.

        Args:
            logits: `[num_rows, vocab_size] float32`.
            rows: as many as `logits` has rows, in the same order.
        """
        ...
