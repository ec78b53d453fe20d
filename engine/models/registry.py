"""The closed list: architecture name to the function that loads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from engine.inputs import ModelInputs
from engine.layers.kv_cache import KvCache
from engine.models.llama import load_llama
from engine.models.spec import Architecture, ModelSpec
from engine.weights.stored_tensors import StoredTensors


class Decoder(Protocol):
    """What the runner needs of a model."""

    def forward(self, inputs: ModelInputs, cache: KvCache) -> Tensor:
        """Compute the rows, write their KV, return `[num_sampling_chunks, vocab_size] float32`."""
        ...


LoadDecoder = Callable[[ModelSpec, StoredTensors, torch.dtype, int], Decoder]

ARCHITECTURES: Mapping[Architecture, LoadDecoder] = MappingProxyType({"LlamaForCausalLM": load_llama})
