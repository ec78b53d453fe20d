"""Model folders for measuring: real shapes, random weights, the starter's tokenizer.

The head's rows of every id that is no plain text token are zero, so that greedy decoding writes text; the work per
token is that of the full vocabulary all the same.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
INIT_STD = 0.02


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of a Llama decoder."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int = 4096


SHAPES = {
    "0.5b": Shape(896, 4864, 24, 14, 2, 64, 151_936),
    "tiny": Shape(128, 352, 4, 4, 2, 32, 2_304),
}


def write_random_model(folder: Path, shape: Shape, starter: Path, *, seed: int = 0) -> int:
    """Write a folder that the appliance can sign and serve.

    Returns:
        Number of parameters.
    """
    folder.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        if (starter / name).exists():
            shutil.copy(starter / name, folder / name)
    ids = json.loads((starter / "config.json").read_text())
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{name: getattr(shape, name) for name in Shape.__slots__},
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": ids["bos_token_id"],
        "eos_token_id": ids["eos_token_id"],
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "README.md").write_text("Random weights of a real shape, for measuring. It says nothing sensible.\n")
    (folder / "LICENSE").write_text("Made on the spot; no rights reserved.\n")
    tensors = _random_tensors(shape, text_token_ids(starter), seed)
    save_file(tensors, folder / "model.safetensors")
    return sum(tensor.numel() for tensor in tensors.values())


def text_token_ids(starter: Path) -> list[int]:
    """Give the ids of the starter's plain text tokens whose bytes are whole characters."""
    vocabulary: dict[str, int] = json.loads((starter / "tokenizer.json").read_text())["model"]["vocab"]
    return sorted(token_id for text, token_id in vocabulary.items() if text.isascii() and text.isalpha())


def _random_tensors(shape: Shape, text_ids: list[int], seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return (torch.randn(*size, generator=random) * INIT_STD).to(torch.bfloat16)

    hidden, inner = shape.hidden_size, shape.intermediate_size
    q_size, kv_size = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    tensors = {
        "model.embed_tokens.weight": normal(shape.vocab_size, hidden),
        "model.norm.weight": torch.ones(hidden, dtype=torch.bfloat16),
        "lm_head.weight": torch.zeros(shape.vocab_size, hidden, dtype=torch.bfloat16),
    }
    tensors["lm_head.weight"][text_ids] = normal(len(text_ids), hidden)
    for layer in range(shape.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        tensors |= {
            f"{prefix}self_attn.q_proj.weight": normal(q_size, hidden),
            f"{prefix}self_attn.k_proj.weight": normal(kv_size, hidden),
            f"{prefix}self_attn.v_proj.weight": normal(kv_size, hidden),
            f"{prefix}self_attn.o_proj.weight": normal(hidden, q_size),
            f"{prefix}mlp.gate_proj.weight": normal(inner, hidden),
            f"{prefix}mlp.up_proj.weight": normal(inner, hidden),
            f"{prefix}mlp.down_proj.weight": normal(hidden, inner),
            f"{prefix}input_layernorm.weight": torch.ones(hidden, dtype=torch.bfloat16),
            f"{prefix}post_attention_layernorm.weight": torch.ones(hidden, dtype=torch.bfloat16),
        }
    return tensors
