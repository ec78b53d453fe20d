"""Denormals are zero inside a step, and the caller's own afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_llama import TinyShape, engine_config, save_tiny_llama

from engine.batch import Batch, SamplingRow, ScheduledChunk
from engine.denormals import denormals_flushed
from engine.request import SamplingParams
from engine.runner import load_runner
from engine.sampler import Sampler


def halves_to_zero() -> bool:
    """Say whether half of the smallest normal number is zero on this thread."""
    return float(torch.tensor([2.0**-126]) / 2) == 0.0


def test_denormals_are_zero_in_the_block_alone() -> None:
    """Even when the block fails."""
    assert not halves_to_zero()
    with denormals_flushed():
        assert halves_to_zero()
    assert not halves_to_zero()
    with pytest.raises(LookupError), denormals_flushed():
        raise LookupError
    assert not halves_to_zero()


def test_loading_computing_and_sampling_leave_the_callers_arithmetic_alone(tmp_path: Path) -> None:
    """Whoever shares the thread with an engine keeps IEEE arithmetic."""
    save_tiny_llama(tmp_path, TinyShape(num_layers=1))
    loaded = load_runner(engine_config(tmp_path))
    assert not halves_to_zero()
    logits = loaded.runner.forward(Batch((ScheduledChunk("a", (1, 2), 0, (0,), samples=True),)))
    assert not halves_to_zero()
    Sampler().sample(logits, [SamplingRow(SamplingParams(max_tokens=1), (1, 2), ())])
    assert not halves_to_zero()
