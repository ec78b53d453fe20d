"""Random-weight Llamas of awkward shapes, written as transformers writes them, and transformers' own answers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from engine.config import EngineConfig, FileDigest


@dataclass(frozen=True, slots=True)
class TinyShape:
    """Sizes of one tiny Llama."""

    vocab_size: int = 97
    hidden_size: int = 48
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int | None = None
    ffn_size: int = 76
    tied: bool = False
    rope_theta: float = 10000.0
    max_positions: int = 256


ODD_SHAPES = {
    "gqa": TinyShape(),
    "mqa": TinyShape(num_heads=6, num_kv_heads=1, hidden_size=60, head_dim=10, vocab_size=131),
    "mha-tied": TinyShape(num_heads=3, num_kv_heads=3, hidden_size=54, tied=True, ffn_size=37),
    "wide-heads": TinyShape(hidden_size=40, num_heads=4, num_kv_heads=2, head_dim=22, rope_theta=500000.0),
    "one-head": TinyShape(hidden_size=18, num_heads=1, num_kv_heads=1, head_dim=18, num_layers=3, vocab_size=7),
}


def save_tiny_llama(folder: Path, shape: TinyShape, *, seed: int = 0, max_shard_size: str = "50GB") -> None:
    """Write config.json and weights of a seeded random Llama.

    The spread of the weights is wide, so that greedy choices are far from ties.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.ffn_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=shape.tied,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(folder, max_shard_size=max_shard_size)


def load_transformers(folder: Path, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """Load the oracle, with eager attention."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    return model.eval()


@torch.inference_mode()
def oracle_logits(model: LlamaForCausalLM, token_ids: list[int]) -> Tensor:
    """Give transformers' logits at every position of one sequence: `[num_tokens, vocab_size]`."""
    return model(torch.tensor([token_ids])).logits[0].float()


@torch.inference_mode()
def oracle_greedy(model: LlamaForCausalLM, prompt: list[int], num_tokens: int) -> list[int]:
    """Continue a prompt greedily by transformers, recomputing everything at each step: slow and beyond doubt."""
    token_ids = list(prompt)
    for _ in range(num_tokens):
        token_ids.append(int(oracle_logits(model, token_ids)[-1].argmax()))
    return token_ids[len(prompt) :]


def digests_of(folder: Path) -> tuple[FileDigest, ...]:
    """Name every file of a folder with the digest it has now."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(
        FileDigest(path.relative_to(folder).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files
    )


def engine_config(folder: Path, **changes: object) -> EngineConfig:
    """Make a small engine configuration over a folder as it lies now."""
    settings: dict[str, object] = {"page_size": 4, "num_pages": 256, **changes}
    return EngineConfig(model_dir=str(folder), file_digests=digests_of(folder), **settings)  # type: ignore[arg-type]
