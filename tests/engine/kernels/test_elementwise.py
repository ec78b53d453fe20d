"""Norm, rotary, gate and KV write equal what the models were trained with: transformers' own functions."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb

from engine.kernels.kv_write import kv_write_reference
from engine.kernels.rms_norm import add_rms_norm_reference, rms_norm_reference
from engine.kernels.rotary import rotary_reference, rotary_table
from engine.kernels.silu_and_mul import silu_and_mul_reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 63, 100])
def test_rms_norm_matches_transformers(size: int, dtype: torch.dtype) -> None:
    """Bit for bit, in every dtype: the rounding happens at the same places."""
    torch.manual_seed(size)
    x, weight = torch.randn(7, size).to(dtype) * 5, torch.rand(size).to(dtype) + 0.5
    norm = LlamaRMSNorm(size, eps=1e-5).to(dtype)
    norm.weight.data.copy_(weight)
    assert torch.equal(rms_norm_reference(x, weight, 1e-5), norm(x).detach())


def test_add_rms_norm_keeps_the_sum_in_the_stream() -> None:
    """The residual stream is changed in place, and what is normalised is the sum."""
    torch.manual_seed(0)
    x, residual, weight = torch.randn(3, 37), torch.randn(3, 37), torch.rand(37)
    expected = x + residual
    normed = add_rms_norm_reference(x, residual, weight, 1e-6)
    assert torch.equal(residual, expected)
    assert torch.equal(normed, rms_norm_reference(expected, weight, 1e-6))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_dim", [2, 22, 64])
def test_rotary_matches_transformers(head_dim: int, dtype: torch.dtype) -> None:
    """Table and rotation, at scattered positions far into the sequence."""
    torch.manual_seed(head_dim)
    positions = torch.tensor([0, 1, 5, 63, 1000, 2047])
    config = LlamaConfig(
        head_dim=head_dim, max_position_embeddings=2048, rope_parameters={"rope_type": "default", "rope_theta": 5e5}
    )
    q, k = torch.randn(1, 3, 6, head_dim).to(dtype), torch.randn(1, 2, 6, head_dim).to(dtype)
    cos, sin = LlamaRotaryEmbedding(config)(q, positions.unsqueeze(0))
    expected = torch.cat(apply_rotary_pos_emb(q, k, cos, sin), dim=1)[0].transpose(0, 1)

    our_cos, our_sin = rotary_table(head_dim, 2048, 5e5, dtype)
    rows = torch.cat((q, k), dim=1)[0].transpose(0, 1)
    got = rotary_reference(rows, our_cos[positions], our_sin[positions])
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 4e-2, torch.float16: 4e-3}[dtype]
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("size", [1, 37])
def test_silu_and_mul_matches_the_formula(size: int) -> None:
    """Gate first, up second; the input is left as it was."""
    torch.manual_seed(size)
    gate_up = torch.randn(5, 2 * size)
    before = gate_up.clone()
    gate, up = before[:, :size], before[:, size:]
    torch.testing.assert_close(silu_and_mul_reference(gate_up), gate / (1 + (-gate).exp()) * up)
    assert torch.equal(gate_up, before)


def test_kv_write_touches_its_slots_alone() -> None:
    """Rows land in their slots in any order; every other slot keeps its NaN."""
    cache = torch.full((5, 3, 2, 7), float("nan"))
    rows = torch.randn(4, 2, 7)
    slots = torch.tensor([14, 0, 7, 4])
    kv_write_reference(rows, cache, slots)
    assert torch.equal(cache.view(15, 2, 7)[slots], rows)
    untouched = [slot for slot in range(15) if slot not in slots.tolist()]
    assert cache.view(15, 2, 7)[untouched].isnan().all()
