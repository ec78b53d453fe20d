"""The Llama decoder: grouped-query attention with rotary positions, gated MLP, pre-norm.

Holds weights, no sequences and no KV memory; one forward pass is a function of its inputs and the cache it is given.
Query, key and value weights are one product, gate and up another: fewer, larger passes over memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine.inputs import ModelInputs
from engine.kernels.kv_write import kv_write_reference
from engine.kernels.paged_attention_cpu import paged_attention_cpu
from engine.kernels.rms_norm import add_rms_norm_reference, rms_norm_reference
from engine.kernels.rotary import rotary_reference, rotary_table
from engine.kernels.silu_and_mul import silu_and_mul_reference
from engine.layers.kv_cache import KvCache
from engine.layers.linear import Linear
from engine.models.spec import ModelSpec
from engine.weights.stored_tensors import StoredTensors


@dataclass(frozen=True, slots=True)
class LlamaLayer:
    """Weights of one decoder layer."""

    attention_norm: Tensor
    qkv: Linear
    """Output rows: all query heads, all key heads, all value heads."""
    attention_output: Linear
    ffn_norm: Tensor
    gate_up: Linear
    """Output rows: gate, then up."""
    down: Linear


class LlamaDecoder:
    """Token rows to logits; owns the weights."""

    def __init__(
        self,
        spec: ModelSpec,
        embedding: Tensor,
        layers: tuple[LlamaLayer, ...],
        final_norm: Tensor,
        head: Linear,
        max_model_len: int,
    ) -> None:
        self._spec = spec
        self._embedding = embedding
        self._layers = layers
        self._final_norm = final_norm
        self._head = head
        self._cos, self._sin = rotary_table(spec.head_dim, max_model_len, spec.rope_theta, embedding.dtype)

    def forward(self, inputs: ModelInputs, cache: KvCache) -> Tensor:
        """Compute every row, store its key and value, and score the rows that choose a token.

        Returns:
            `[num_sampling_chunks, vocab_size] float32`.
        """
        eps = self._spec.rms_norm_eps
        cos, sin = self._cos.index_select(0, inputs.positions), self._sin.index_select(0, inputs.positions)
        residual = functional.embedding(inputs.token_ids, self._embedding)
        block = torch.zeros_like(residual)
        for index, layer in enumerate(self._layers):
            normed = add_rms_norm_reference(block, residual, layer.attention_norm, eps)
            block = self._attend(normed, layer, cos, sin, inputs, cache, index)
            normed = add_rms_norm_reference(block, residual, layer.ffn_norm, eps)
            block = layer.down(silu_and_mul_reference(layer.gate_up(normed)))
        if not len(inputs.logits_rows):
            return torch.empty(0, self._spec.vocab_size)
        # The head is the widest product of all, and only the rows that choose a token need it.
        last = (residual + block).index_select(0, inputs.logits_rows)
        return self._head(rms_norm_reference(last, self._final_norm, eps)).float()

    def _attend(
        self, x: Tensor, layer: LlamaLayer, cos: Tensor, sin: Tensor, inputs: ModelInputs, cache: KvCache, index: int
    ) -> Tensor:
        spec = self._spec
        num_rotated = spec.num_heads + spec.num_kv_heads
        heads = layer.qkv(x).view(len(x), num_rotated + spec.num_kv_heads, spec.head_dim)
        rotated = rotary_reference(heads[:, :num_rotated], cos, sin)
        kv_write_reference(rotated[:, spec.num_heads :], cache.keys[index], inputs.slot_mapping)
        kv_write_reference(heads[:, num_rotated:], cache.values[index], inputs.slot_mapping)
        attended = paged_attention_cpu(
            rotated[:, : spec.num_heads], cache.keys[index], cache.values[index], inputs.attention, spec.head_dim**-0.5
        )
        return layer.attention_output(attended.flatten(1))


def load_llama(spec: ModelSpec, tensors: StoredTensors, dtype: torch.dtype, max_model_len: int) -> LlamaDecoder:
    """Move a Llama's tensors into a decoder, fusing what is computed together.

    Raises:
        LoadError: a tensor is missing, left over, or of another shape than the spec says.
    """

    def take(*names: str, sizes: tuple[int, ...], width: int) -> Tensor:
        """Stack weights of the same input width: `[sum(sizes), width]`."""
        weight = torch.empty(sum(sizes), width, dtype=dtype)
        for name, rows in zip(names, torch.split(weight, list(sizes)), strict=True):
            tensors.move_into(f"{name}.weight", rows)
        return weight

    def norm(name: str) -> Tensor:
        weight = torch.empty(spec.hidden_size, dtype=dtype)
        tensors.move_into(f"{name}.weight", weight)
        return weight

    def layer(prefix: str) -> LlamaLayer:
        hidden, ffn = spec.hidden_size, spec.ffn_size
        q_size, kv_size = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
        attn, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        return LlamaLayer(
            attention_norm=norm(f"{prefix}.input_layernorm"),
            qkv=Linear(
                take(
                    f"{attn}.q_proj",
                    f"{attn}.k_proj",
                    f"{attn}.v_proj",
                    sizes=(q_size, kv_size, kv_size),
                    width=hidden,
                )
            ),
            attention_output=Linear(take(f"{attn}.o_proj", sizes=(hidden,), width=q_size)),
            ffn_norm=norm(f"{prefix}.post_attention_layernorm"),
            gate_up=Linear(take(f"{mlp}.gate_proj", f"{mlp}.up_proj", sizes=(ffn, ffn), width=hidden)),
            down=Linear(take(f"{mlp}.down_proj", sizes=(hidden,), width=ffn)),
        )

    vocab = (spec.vocab_size,)
    embedding = take("model.embed_tokens", sizes=vocab, width=spec.hidden_size)
    if spec.tied_head:
        _drop_tied_copy(tensors)
        head = Linear(embedding)
    else:
        head = Linear(take("lm_head", sizes=vocab, width=spec.hidden_size))
    layers = tuple(layer(f"model.layers.{index}") for index in range(spec.num_layers))
    final_norm = norm("model.norm")
    _drop_derivable(tensors)
    tensors.finish()
    return LlamaDecoder(spec, embedding, layers, final_norm, head, max_model_len)


def _drop_derivable(tensors: StoredTensors) -> None:
    """Forget the rotary frequencies that old checkpoints stored; they follow from the spec."""
    for name in tensors.names():
        if name.endswith(".self_attn.rotary_emb.inv_freq"):
            tensors.drop(name)


def _drop_tied_copy(tensors: StoredTensors) -> None:
    """Forget the second copy of a tied embedding that some exporters write."""
    if "lm_head.weight" in tensors.names():
        tensors.drop("lm_head.weight")
