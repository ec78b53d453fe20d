"""The gate of a gated MLP."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def silu_and_mul_reference(gate_up: Tensor) -> Tensor:
    """Multiply the up half by the SiLU of the gate half.

    Args:
        gate_up: `[num_tokens, 2 * ffn_size]`, gate first.

    Returns:
        `[num_tokens, ffn_size]` of the same dtype.
    """
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate).mul_(up)
