"""A model runner whose batches are seen before they are computed.

Promise: the observer sees every batch, once, before any of it is computed.  Never: changes a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.batch import Batch, ModelRunner

if TYPE_CHECKING:
    from torch import Tensor

BeforeForward = Callable[[Batch], None]


@dataclass(frozen=True, slots=True)
class ObservedRunner:
    """A runner that lets the batch be seen before it computes it."""

    runner: ModelRunner
    before_forward: BeforeForward

    def forward(self, batch: Batch) -> Tensor:
        """Show the batch, then compute it."""
        self.before_forward(batch)
        return self.runner.forward(batch)
