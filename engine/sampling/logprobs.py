"""Log-probabilities as reported: of the raw logits, in fp32, before any penalty, temperature or truncation."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.request import TokenLogprobs


def token_logprobs(logits: Tensor, token_id: int, num_top: int) -> TokenLogprobs:
    """Report one chosen token.

    Args:
        logits: `[vocab_size] float32`, finite.
        token_id: the chosen token.
        num_top: how many of the most likely tokens to name; equals stand in order of their ids.
    """
    logprobs = torch.log_softmax(logits, dim=-1)
    top: tuple[tuple[int, float], ...] = ()
    if num_top:
        num_top = min(num_top, len(logprobs))
        border = logprobs.topk(num_top).values[-1]
        ids = (logprobs >= border).nonzero().squeeze(1)
        pairs = zip(ids.tolist(), logprobs[ids].tolist(), strict=True)
        top = tuple(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))[:num_top]
    return TokenLogprobs(
        token_id=token_id,
        logprob=float(logprobs[token_id]),
        rank=int((logprobs > logprobs[token_id]).sum()) + 1,
        top=top,
    )
