"""Cutting the tail of a distribution: top_k, then top_p of what is left, and min_p against the most likely token.

Each rule is a threshold on the probability, so tokens as likely as the last one kept are kept as well: which of two
equals survives can then not depend on the order in which a sort happened to leave them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.request import SamplingParams

CANDIDATE_WIDTHS = (128, 4096)
"""Almost every truncated distribution fits into the first; a full sort of the vocabulary is the last resort."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is left of one row: `[num_candidates]` each, by falling probability; not renormalised."""

    token_ids: Tensor
    probs: Tensor
    """0 where a candidate was cut after all."""


def truncates(params: SamplingParams) -> bool:
    """Say whether any token can be cut."""
    return params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0


def truncate(probs: Tensor, params: Sequence[SamplingParams]) -> tuple[Candidates, ...]:
    """Cut each row's tail.

    Args:
        probs: `[num_rows, vocab_size] float32`, each row a softmax.
        params: one per row.
    """
    vocab_size = probs.shape[1]
    found: list[Candidates | None] = [None] * len(params)
    for width in (*(width for width in CANDIDATE_WIDTHS if width < vocab_size), vocab_size):
        rows = [row for row, candidates in enumerate(found) if candidates is None]
        if not rows:
            break
        values, token_ids = probs[rows].topk(width)
        kept, is_certain = _kept(values, [params[row] for row in rows])
        values = values * kept
        for place, certain in enumerate(is_certain.tolist()):
            if certain or width == vocab_size:
                found[rows[place]] = Candidates(token_ids[place], values[place])
    return tuple(candidates for candidates in found if candidates is not None)


def _kept(values: Tensor, params: Sequence[SamplingParams]) -> tuple[Tensor, Tensor]:
    """Say which of a row's most likely tokens survive, and whether looking at more of them could change that.

    Every sum runs from the left in fp64, so that a wider look at the same row decides the same.

    Args:
        values: `[num_rows, width]` the largest probabilities, falling.
        params: one per row.

    Returns:
        `[num_rows, width] bool`, true from the left; and `[num_rows] bool`.
    """
    width = values.shape[1]
    top_k = torch.tensor([one.top_k or width + 1 for one in params]).unsqueeze(1)
    limits_k = torch.tensor([one.top_k > 0 for one in params])
    kth = values.gather(1, top_k.clamp(max=width) - 1)
    # What underflowed to 0 can never be drawn, and keeping it would ask for ever wider looks.
    by_k = ((values >= kth) | (top_k > width)) & (values > 0)
    mass = (values * by_k).double().cumsum(dim=1)
    whole = torch.where(limits_k.unsqueeze(1), mass[:, -1:], 1.0)
    before = mass - values * by_k
    top_p = torch.tensor([one.top_p if one.top_p < 1.0 else float("inf") for one in params]).unsqueeze(1)
    min_p = torch.tensor([one.min_p for one in params], dtype=torch.float32).unsqueeze(1)
    kept = by_k & (before < top_p * whole) & (values >= min_p * values[:, :1])
    kept[:, 0] = True
    kept = values >= values.masked_fill(~kept, float("inf")).amin(dim=1, keepdim=True)
    # A cut inside the look proves that nothing beyond it survives.  But top_p takes its share of all that top_k leaves,
    # ties included, so with top_k it is top_k's own cut that must lie inside.
    return kept, ~torch.where(limits_k, by_k[:, -1], kept[:, -1])
