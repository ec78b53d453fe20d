"""Root-mean-square norm, alone and after a residual sum."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise each row, accumulating in fp32, and scale it.

    Args:
        x: `[num_tokens, size]` any floating dtype.
        weight: `[size]` of the same dtype.
        eps: added to the mean square.

    Returns:
        `[num_tokens, size]` of x's dtype.
    """
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True).add_(eps))
    # The product is rounded to x's dtype before the weight is applied: so it was when the models were trained.
    return (wide * scale).to(x.dtype) * weight


def add_rms_norm_reference(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Add x to the residual stream in place and normalise the sum.

    Args:
        x: `[num_tokens, size]` output of the block before.
        residual: `[num_tokens, size]` the stream; overwritten with `residual + x`.
        weight: `[size]`.
        eps: added to the mean square.

    Returns:
        `[num_tokens, size]` the normalised sum.
    """
    residual += x
    return rms_norm_reference(residual, weight, eps)
