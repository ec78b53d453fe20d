"""Arithmetic without denormals: one of them in an activation makes a step a hundred times slower, and is worth nothing.

The setting is the thread's, not the process's, so it is put back: the caller's arithmetic is not ours to change.  A
thread inherits it from the one that starts it; torch starts its threads at the first large operation, which in an
engine process is in `load_runner`, so they keep it for good.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Treat denormal numbers as zero on this thread, in the block or in the decorated function."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
