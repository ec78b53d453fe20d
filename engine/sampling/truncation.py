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
        # top_p is a share of what top_k leaves, so a look narrower than top_k decides nothing.
        rows = [row for row, one in enumerate(params) if found[row] is None and _decidable(one, width, vocab_size)]
        if not rows:
            continue
        values, token_ids = probs[rows].topk(width)
        kept = _kept(values, [params[row] for row in rows])
        # A cut inside the width proves that nothing beyond it survives, ties included.
        complete = (~kept[:, -1] | (width == vocab_size)).tolist()
        values = values * kept
        for place, row in enumerate(rows):
            if complete[place]:
                found[row] = Candidates(token_ids[place], values[place])
    return tuple(candidates for candidates in found if candidates is not None)


def _decidable(params: SamplingParams, width: int, vocab_size: int) -> bool:
    return params.top_k <= width or width == vocab_size


def _kept(values: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Say which of the most likely tokens survive: `[num_rows, width] bool`, true from the left.

    Every sum runs from the left in fp64, so that a wider look at the same row decides the same.
    """
    width = values.shape[1]
    top_k = torch.tensor([one.top_k or width + 1 for one in params]).unsqueeze(1)
    kth = values.gather(1, top_k.clamp(max=width) - 1)
    by_k = (values >= kth) | (top_k > width)
    mass = (values * by_k).double().cumsum(dim=1)
    whole = torch.where(top_k <= width, mass[:, -1:], 1.0)
    before = mass - values * by_k
    top_p = torch.tensor([one.top_p if one.top_p < 1.0 else float("inf") for one in params]).unsqueeze(1)
    by_p = before < top_p * whole
    min_p = torch.tensor([one.min_p for one in params], dtype=torch.float32).unsqueeze(1)
    # What underflowed to 0 can never be drawn, and keeping it would ask for ever wider looks.
    kept = by_k & by_p & (values >= min_p * values[:, :1]) & (values > 0)
    kept[:, 0] = True
    return values >= values.masked_fill(~kept, float("inf")).amin(dim=1, keepdim=True)
