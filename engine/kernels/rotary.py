"""Rotary position embedding in half-split form: element i is paired with element i + head_dim / 2."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_table(head_dim: int, max_len: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Compute the cosines and sines of every position in fp32, then round them.

    Returns:
        Two tensors `[max_len, head_dim / 2]` of dtype.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    angles = torch.outer(torch.arange(max_len, dtype=torch.float32), 1.0 / theta**exponents)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotary_reference(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate every head of every token by the token's position.

    Args:
        x: `[num_tokens, num_heads, head_dim]`.
        cos: `[num_tokens, head_dim / 2]` rows of the table at the tokens' positions.
        sin: likewise.

    Returns:
        A new tensor of x's shape and dtype.
    """
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
