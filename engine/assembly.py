"""The engine process's composition root: a verified model, a sampler and the core that drives them."""

from __future__ import annotations

import time

import torch

from engine.build import engine_build, processor_name
from engine.config import EngineConfig
from engine.core import EngineCore
from engine.health import EngineInfo
from engine.observed_runner import BeforeForward, ObservedRunner
from engine.runner import load_runner
from engine.sampler import Sampler


def build_core(config: EngineConfig, before_forward: BeforeForward) -> tuple[EngineCore, EngineInfo]:
    """Verify and load the model, and say what was loaded.

    Raises:
        LoadError: the model is refused.
    """
    loaded = load_runner(config)
    core = EngineCore(
        config,
        max_model_len=loaded.max_model_len,
        vocab_size=loaded.vocab_size,
        num_pages=loaded.num_pages,
        runner=ObservedRunner(loaded.runner, before_forward),
        sampler=Sampler(),
        now=time.monotonic,
    )
    engine_info = EngineInfo(
        max_model_len=loaded.max_model_len,
        vocab_size=loaded.vocab_size,
        num_pages=loaded.num_pages,
        page_size=config.page_size,
        dtype=config.dtype,
        engine_build=engine_build(),
        torch_version=str(torch.__version__),
        processor=processor_name(torch.backends.cpu.get_cpu_capability()),
        num_threads=torch.get_num_threads(),
        weight_bytes=loaded.report.weight_bytes,
        kv_bytes=loaded.report.kv_bytes,
        verify_s=loaded.report.verify_s,
        build_s=loaded.report.build_s,
        enable_prefix_cache=config.enable_prefix_cache,
        quantization=loaded.spec.quantization,
    )
    return core, engine_info
