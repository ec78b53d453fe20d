"""An engine process with the real loop and a scripted core in place of a model: `python scripted_worker.py FD PID`.

The script is in what the production code hands over anyway.  The prompt's first token says what happens to a request;
every other output token is the last one plus one.  When the model folder has a FIFO called `permits`, each step waits
for one byte from it, so a test decides how many steps are made.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from engine import worker
from engine.batch import Batch, ScheduledChunk
from engine.config import EngineConfig
from engine.errors import RequestRefused
from engine.health import EngineInfo
from engine.observed_runner import BeforeForward
from engine.request import GenerationRequest, StepEvent
from engine.stats import CoreStats
from engine.weights.errors import DigestMismatch

REFUSED, RAISES_IN_ADD, RAISES_IN_STEP, KILLS_IN_STEP, BREAKS_BOOKS = 9001, 9002, 9003, 9004, 9005
SECRET = "the patient's name is Alder"
COMMAND = (sys.executable, "-P", __file__)


@dataclass
class Running:
    """A request and what it has so far."""

    request: GenerationRequest
    output: list[int] = field(default_factory=list)


class ScriptedCore:
    """Keeps the contract of `engine.worker.Core`."""

    def __init__(self, config: EngineConfig, before_forward: BeforeForward) -> None:
        self._max_running = config.max_num_sequences
        self._before_forward = before_forward
        self._waiting: deque[GenerationRequest] = deque()
        self._running: dict[str, Running] = {}
        self._cancelled: dict[str, None] = {}
        self._books_balance = True
        self._num_steps = 0
        permits = Path(config.model_dir) / "permits"
        self._permits = os.open(permits, os.O_RDWR) if permits.exists() else None

    def add(self, request: GenerationRequest) -> None:
        """Queue, refuse or break."""
        if request.token_ids[0] == REFUSED:
            raise RequestRefused("prompt_too_long")
        if request.token_ids[0] == RAISES_IN_ADD:
            raise KeyError(SECRET)
        self._waiting.append(request)

    def cancel(self, request_id: str) -> None:
        """Drop it in the next step."""
        if request_id in self._running or any(request.request_id == request_id for request in self._waiting):
            self._cancelled[request_id] = None

    def has_work(self) -> bool:
        """Anything live."""
        return bool(self._waiting or self._running)

    def step(self) -> tuple[StepEvent, ...]:
        """One token for each running request."""
        self._num_steps += 1
        events = self._drop_cancelled()
        while self._waiting and len(self._running) < self._max_running:
            request = self._waiting.popleft()
            self._running[request.request_id] = Running(request)
        if not self._running:
            return events
        self._before_forward(Batch(tuple(self._chunk(running) for running in self._running.values())))
        if self._permits is not None:
            os.read(self._permits, 1)
        return events + tuple(self._advance(running) for running in tuple(self._running.values()))

    def stats(self) -> CoreStats:
        """Gauges."""
        return CoreStats(
            len(self._running),
            len(self._waiting),
            num_pages=8,
            num_free_pages=8,
            num_cached_pages=0,
            num_steps=self._num_steps,
            num_preemptions=self._num_steps,  # as if each step preempted one
        )

    def check_integrity(self) -> None:
        """Fails once BREAKS_BOOKS has run to its end."""
        assert self._books_balance, SECRET

    def _drop_cancelled(self) -> tuple[StepEvent, ...]:
        events = tuple(StepEvent(request_id, finish="cancelled") for request_id in self._cancelled)
        self._waiting = deque(request for request in self._waiting if request.request_id not in self._cancelled)
        for request_id in self._cancelled:
            self._running.pop(request_id, None)
        self._cancelled.clear()
        return events

    def _chunk(self, running: Running) -> ScheduledChunk:
        return ScheduledChunk(running.request.request_id, running.request.token_ids, 0, (0,), samples=True)

    def _advance(self, running: Running) -> StepEvent:
        request = running.request
        if request.token_ids[0] == RAISES_IN_STEP:
            raise ValueError(SECRET)
        if request.token_ids[0] == KILLS_IN_STEP:
            os.kill(os.getpid(), signal.SIGKILL)
        is_first = not running.output
        running.output.append((running.output or request.token_ids)[-1] + 1)
        is_last = len(running.output) == request.params.max_tokens
        if is_last:
            del self._running[request.request_id]
            self._books_balance = request.token_ids[0] != BREAKS_BOOKS
        return StepEvent(
            request.request_id,
            token_ids=(running.output[-1],),
            finish="length" if is_last else None,
            num_cached_tokens=0 if is_first else None,
            queue_time_s=0.0 if is_first else None,
        )


def build_core(config: EngineConfig, before_forward: BeforeForward) -> tuple[ScriptedCore, EngineInfo]:
    """Load nothing; refuse, die, hang or babble in a folder that says so."""
    if (Path(config.model_dir) / "bad.safetensors").exists():
        raise DigestMismatch("bad.safetensors", "0" * 64, "1" * 64)
    if (Path(config.model_dir) / "kills").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (Path(config.model_dir) / "hangs").exists():  # a FIFO: says who hangs, once somebody reads
        (Path(config.model_dir) / "hangs").write_text(str(os.getpid()))
        signal.pause()
    if (Path(config.model_dir) / "babbles").exists():
        os.write(int(sys.argv[1]), b"\xff" * 64)
    engine_info = EngineInfo(
        max_model_len=10**6,
        vocab_size=10**4,
        num_pages=8,
        page_size=config.page_size,
        dtype=config.dtype,
        engine_build="0" * 64,
        torch_version="none",
        processor="none",
        num_threads=1,
        weight_bytes=0,
        kv_bytes=0,
        verify_s=0.0,
        build_s=0.0,
        enable_prefix_cache=config.enable_prefix_cache,
        quantization="none",
    )
    return ScriptedCore(config, before_forward), engine_info


if __name__ == "__main__":
    sys.exit(worker.start(sys.argv[1:], build_core))
