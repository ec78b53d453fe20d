"""A model folder to a `ModelRunner`: verify, build, size the KV memory, and then compute steps.

Never: a decision about which tokens run, or a choice of a token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from engine.batch import Batch
from engine.config import DType, EngineConfig
from engine.denormals import denormals_flushed
from engine.inputs import build_inputs
from engine.layers.kv_cache import KvCache, kv_page_bytes
from engine.models.config_reader import read_model_spec
from engine.models.registry import ARCHITECTURES, Decoder
from engine.models.spec import ModelSpec
from engine.weights.errors import ModelDoesNotFit
from engine.weights.stored_tensors import load_safetensors
from engine.weights.verified_folder import VerifiedFolder

DTYPES: dict[DType, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What loading took."""

    weight_bytes: int
    """Bytes of weight files, read and hashed."""
    kv_bytes: int
    verify_s: float
    """Reading and hashing every file, and parsing what they say of themselves."""
    build_s: float
    """Moving, fusing and packing the weights."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to compute, and the numbers that a scheduler plans with."""

    runner: ModelRunnerCpu
    spec: ModelSpec
    num_pages: int
    """Page ids `[0, num_pages)` may be named in a batch."""
    max_model_len: int
    """Longest sequence in tokens: what the model, the configuration and the KV memory all allow."""
    vocab_size: int
    report: LoadReport


class ModelRunnerCpu:
    """Owner of weights and KV memory; one step at a time, on one thread."""

    def __init__(self, decoder: Decoder, cache: KvCache, dtype: torch.dtype) -> None:
        self._decoder = decoder
        self._cache = cache
        self._dtype = dtype

    @denormals_flushed()
    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """Compute the batch; contract in `engine.batch.ModelRunner`."""
        inputs = build_inputs(batch, self._cache.page_size, self._dtype)
        return self._decoder.forward(inputs, self._cache)


@denormals_flushed()
def load_runner(config: EngineConfig, *, clock: Callable[[], float] = perf_counter) -> LoadedModel:
    """Verify a model folder, build the model and its KV memory.

    Sets torch's threads for this process.

    Args:
        config: paths, digests and bounds.
        clock: seconds, for the report alone.

    Raises:
        LoadError: the model is refused; nothing of it stays.
    """
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    dtype = DTYPES[config.dtype]

    started = clock()
    folder = VerifiedFolder(config.model_dir, config.file_digests)
    spec = read_model_spec(folder)
    num_pages = _num_pages(config, spec, dtype)
    max_model_len = _max_model_len(config, spec, num_pages)
    tensors = load_safetensors(folder)
    verified = clock()
    decoder = ARCHITECTURES[spec.architecture](spec, tensors, dtype, max_model_len)
    built = clock()

    cache = KvCache(spec.num_layers, num_pages, config.page_size, spec.num_kv_heads, spec.head_dim, dtype)
    return LoadedModel(
        runner=ModelRunnerCpu(decoder, cache, dtype),
        spec=spec,
        num_pages=num_pages,
        max_model_len=max_model_len,
        vocab_size=spec.vocab_size,
        report=LoadReport(
            weight_bytes=tensors.num_bytes,
            kv_bytes=num_pages * _page_bytes(config, spec, dtype),
            verify_s=verified - started,
            build_s=built - verified,
        ),
    )


def _page_bytes(config: EngineConfig, spec: ModelSpec, dtype: torch.dtype) -> int:
    return kv_page_bytes(spec.num_layers, config.page_size, spec.num_kv_heads, spec.head_dim, dtype)


def _num_pages(config: EngineConfig, spec: ModelSpec, dtype: torch.dtype) -> int:
    if config.page_size < 1 or config.num_pages < 0:
        raise ModelDoesNotFit(
            f"{config.num_pages} pages of {config.page_size} tokens are no memory", "set page_size to at least 1"
        )
    if config.num_pages:
        return config.num_pages
    page_bytes = _page_bytes(config, spec, dtype)
    num_pages = config.kv_memory_bytes // page_bytes
    if num_pages < 1:
        raise ModelDoesNotFit(
            f"kv_memory_bytes {config.kv_memory_bytes} holds no page of {page_bytes} bytes",
            f"set kv_memory_bytes to at least {page_bytes}",
        )
    return num_pages


def _max_model_len(config: EngineConfig, spec: ModelSpec, num_pages: int) -> int:
    """Take the configured length, or without one the longest that the model and the KV memory allow."""
    room = num_pages * config.page_size
    longest = spec.max_position_embeddings
    if config.max_model_len > longest:
        raise ModelDoesNotFit(
            f"max_model_len {config.max_model_len} is more than the model's {longest} positions",
            f"set max_model_len to at most {longest}",
        )
    if config.max_model_len > room:
        raise ModelDoesNotFit(
            f"max_model_len {config.max_model_len} is more than the {room} tokens of KV memory",
            f"set max_model_len to at most {room}, or give more KV memory",
        )
    return config.max_model_len or min(longest, room)
