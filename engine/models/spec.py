"""What a decoder computes, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Architecture = Literal["LlamaForCausalLM"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A decoder-only transformer: sizes and constants, nothing about where its weights lie."""

    architecture: Architecture
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    """Query heads; a multiple of `num_kv_heads`."""
    num_kv_heads: int
    head_dim: int
    """Even; not always `hidden_size / num_heads`."""
    ffn_size: int
    rms_norm_eps: float
    rope_theta: float
    max_position_embeddings: int
    """Tokens of the longest sequence the model was made for."""
    tied_head: bool
    """True when the output head is the token embedding."""
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    """Ends of generation that the model's files name."""
    quantization: Literal["none"]
    """How weights are stored in fewer bits than they are computed in; the reader refuses every way that there is."""
