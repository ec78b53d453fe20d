"""What the service tells about the engine process, as values.  Opens nothing, decides one thing: what healthy means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.request import NO_USAGE, SequenceUsage
from engine.stats import CoreCounts, CoreStats

EngineState = Literal["loading", "ready", "restarting", "failed", "stopped"]
"""loading: before the first success of `start`.  ready: a process serves.  restarting: it died, the queue is kept.
failed: it died too often in a row, or never loaded.  stopped: ordered to, or never started."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the engine process loaded and within which bounds it serves."""

    max_model_len: int
    """Longest sequence in tokens, prompt and output."""
    vocab_size: int
    num_pages: int
    page_size: int
    """Tokens per KV page."""
    dtype: str
    engine_build: str
    """Names the engine's source: 64 hexadecimal digits over every file of the package."""
    torch_version: str
    processor: str
    """What rounded: machine, instruction set and name of the CPU.  Another one may add up in another order."""
    num_threads: int
    """Intra-op threads of torch."""
    weight_bytes: int
    """Bytes of weight files, read and hashed."""
    kv_bytes: int
    verify_s: float
    """Reading and hashing every file."""
    build_s: float
    """Making the model of what was read."""
    enable_prefix_cache: bool
    quantization: str
    """Of the weights: `none` where they are stored as they are computed in."""


@dataclass(frozen=True, slots=True)
class EngineExit:
    """One unordered end of an engine process."""

    code: str
    """Stable: `signal`, `exit`, `load_failed`, `spawn_failed` (the machine would not start one), or the code of the
    process's own `Fault`."""
    detail: str
    """Signal or exit status, file or source line; never text of a prompt or of a library."""
    at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """The state of the engine at one moment."""

    state: EngineState
    is_healthy: bool
    """Ready, and a step finished within the stall limit or nothing is to do.  A process that merely exists is not."""
    last_step_age_s: float | None
    """Seconds since a step finished; None before the first one of this process."""
    busy: bool
    """Requests run or wait."""
    pid: int | None
    """Of the present engine process."""
    restarts: int
    """Processes that were started after the first."""
    last_exit: EngineExit | None
    num_running: int
    """Requests that have entered a step and have not ended."""
    num_waiting: int
    """Requests that have not entered a step yet."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since `start`, over all processes, and the latest gauges of the present one."""

    # counted from the events of requests
    num_prompt_tokens: int
    """Prompt tokens of requests whose first event came."""
    num_cached_tokens: int
    """Those of them that the prefix cache held."""
    num_last_tokens_recomputed: int
    """Prompts that the prefix cache held but for the last token, which is computed because its logits are needed."""
    num_output_tokens: int
    num_nan_logits: int
    """Requests that ended because their scores were not finite."""
    num_finished: tuple[tuple[str, int], ...]
    """(finish reason, requests), in alphabetical order."""

    # counted by the cores
    counts: CoreCounts
    steps_by_tokens: tuple[tuple[int, int], ...]
    """(tokens computed in one step, steps that computed so many), ascending; steps that computed none are left out."""
    restarts: int

    # gauges
    num_running: int
    """Sequences in the running batch, as the last step of the present process left it."""
    num_waiting: int
    """All other live requests: queued, preempted, or kept for the process that is being started."""
    core: CoreStats | None
    """As the last step left it; None until a step of the present process finished."""
    loaded: EngineInfo | None
    """What the first process loaded; None before it had."""

    late: SequenceUsage = NO_USAGE
    """Part of the prompt, cached and output tokens above: what came after its consumer had taken account of its
    sequence, because that had been given up."""


def has_progressed(*, now: float, busy_since: float | None, last_step_at: float | None, stall_limit_s: float) -> bool:
    """Whether a step finished recently or there is nothing to do.

    Args:
        now: of the same clock as the other two.
        busy_since: when the present work began to wait for the engine; None when there is none.
        last_step_at: when the last step finished; None when none has.
        stall_limit_s: longest time that one step may take.
    """
    if busy_since is None:
        return True
    since = busy_since if last_step_at is None else max(busy_since, last_step_at)
    return now - since <= stall_limit_s
