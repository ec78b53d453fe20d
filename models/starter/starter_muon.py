"""Muon: momentum whose update is made orthogonal, for the weight matrices of a small decoder.

Promise: each step is a function of the gradients, the state and the learning rate alone.
Never: touches embeddings or norms; AdamW has those.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalised(matrix: Tensor, rounds: int = 5) -> Tensor:
    """Move the singular values of a matrix close to one by a quintic Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.to(torch.bfloat16)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    orthogonal: Tensor = (x.T if tall else x).to(matrix.dtype)
    return orthogonal


class Muon:
    """The optimiser: one momentum buffer per matrix."""

    def __init__(self, matrices: Iterable[nn.Parameter], momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        self.matrices = list(matrices)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.buffers = [torch.zeros_like(matrix) for matrix in self.matrices]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Apply the gradients that stand on the matrices."""
        for matrix, buffer in zip(self.matrices, self.buffers, strict=True):
            assert matrix.grad is not None, "step before backward"
            buffer.lerp_(matrix.grad, 1 - self.momentum)
            update = orthogonalised(matrix.grad.lerp(buffer, self.momentum))
            scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
            matrix.mul_(1 - rate * self.weight_decay)
            matrix.add_(update, alpha=-rate * scale)
