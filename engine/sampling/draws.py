"""Counter-based random numbers: a pure function of (seed, position, token id), the same in any batch and order.

Each draw hashes the token id under a 64-bit key; the key hashes seed and position.  There is no state to share, so no
request can advance another's, and a recorded seed replays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MASK_64 = 2**64 - 1
MASK_32 = 2**32 - 1
GOLDEN_GAMMA = 0x9E3779B97F4A7C15
"""Odd, 2**64 over the golden ratio: consecutive counters land far apart (SplitMix64)."""
ALMOST_ONE = np.float32(1.0 - 2.0**-24)


def draw_key(seed: int, position: int) -> int:
    """Mix a request's seed and an output position into 64 bits."""
    return _mix_64((_mix_64(seed & MASK_64) + GOLDEN_GAMMA * (position + 1)) & MASK_64)


def exponential_noise(keys: Sequence[int], token_ids: Tensor) -> Tensor:
    """Draw standard exponential numbers; `argmax(p / noise)` is a draw from p (the Gumbel-max trick, one log cheaper).

    Args:
        keys: one `draw_key` per row.
        token_ids: `[num_rows, num_candidates] int64`.

    Returns:
        `[num_rows, num_candidates] float32`, positive and finite.
    """
    ids = token_ids.numpy().astype(np.uint32)
    uniform = np.empty(ids.shape, dtype=np.float32)
    for row, key in enumerate(keys):  # row by row, so that a row stays in the processor's cache
        uniform[row] = _hash_32(ids[row], key)
    # The small numbers decide, and near zero a float is exact: so the uniform is taken from its small end.
    uniform += np.float32(0.5)
    uniform *= np.float32(2.0**-32)
    np.minimum(uniform, ALMOST_ONE, out=uniform)
    return torch.from_numpy(uniform).neg_().log1p_().neg_()


def _mix_64(value: int) -> int:
    """Apply SplitMix64's finaliser: every input bit changes half of the output bits."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK_64
    return value ^ (value >> 31)


def _hash_32(values: NDArray[np.uint32], key: int) -> NDArray[np.uint32]:
    """Hash 32-bit values under a 64-bit key: two rounds, half of the key before each."""
    mixed = _mix_32(values ^ np.uint32(key & MASK_32))
    mixed ^= np.uint32(key >> 32)
    return _mix_32(mixed)


def _mix_32(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Mix in place (a bijection of low bias: xor-shift, multiply, twice); arrays wrap around silently."""
    values ^= values >> np.uint32(16)
    values *= np.uint32(0x7FEB352D)
    values ^= values >> np.uint32(15)
    values *= np.uint32(0x846CA68B)
    values ^= values >> np.uint32(16)
    return values
