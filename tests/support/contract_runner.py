"""A model runner and a sampler that compute nothing and check everything the core owes them.

The KV memory remembers, for each slot of each page, the salt under which and the exact prefix for which it was written.
`forward` fails unless every position that a chunk may read holds precisely that of its own sequence, so a stale page, a
page of another salt, or one that somebody else wrote cannot pass.  What a request answers is a pure function of its
tokens, parameters and seed, known without any engine: `expected_answer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from engine.batch import Batch, ModelRunner, SampledToken, SamplingRow, ScheduledChunk
from engine.config import EngineConfig
from engine.core import EngineCore
from engine.request import FinishReason, GenerationRequest, SamplingParams, TokenLogprobs

VOCAB_SIZE = 32
MASK = 2**61 - 1


def extend(prefix: int, token_id: int) -> int:
    """Name the prefix that is one token longer."""
    return ((prefix ^ (token_id + 1)) * 0x9E3779B97F4A7C15 + (prefix >> 17) + 0x2545F491) & MASK


def logits_after(prefix: int) -> torch.Tensor:
    """Give distinct logits that depend on the prefix alone."""
    return torch.tensor([float(extend(prefix, token_id) % 8191) + token_id / 64 for token_id in range(VOCAB_SIZE)])


def choose(logits: torch.Tensor, params: SamplingParams, num_output: int, position: int) -> int:
    """Choose by seed and position, and keep `min_tokens`."""
    candidates = logits.tolist()
    if num_output < params.min_tokens:
        for token_id in params.stop_token_ids + (() if params.ignore_eos else params.eos_token_ids):
            candidates[token_id] = float("-inf")
    order = sorted(range(VOCAB_SIZE), key=lambda token_id: -candidates[token_id])
    return order[extend(params.seed, position) % 3]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request must get."""

    token_ids: tuple[int, ...]
    finish: FinishReason


def expected_answer(request: GenerationRequest, max_model_len: int) -> Answer:
    """Compute a request alone, without any engine."""
    params = request.params
    prefix = 0
    for token_id in request.token_ids:
        prefix = extend(prefix, token_id)
    output: list[int] = []
    ends = set(params.stop_token_ids) | (set() if params.ignore_eos else set(params.eos_token_ids))
    while True:
        position = len(request.token_ids) + len(output)
        output.append(choose(logits_after(prefix), params, len(output), position))
        prefix = extend(prefix, output[-1])
        if output[-1] in ends:
            return Answer(tuple(output), "stop")
        if len(output) == params.max_tokens or position + 1 == max_model_len:
            return Answer(tuple(output), "length")


@dataclass
class Known:
    """What the runner knows of one request independently of the core."""

    salt: bytes
    token_ids: list[int]
    slots: list[tuple[bytes, int]] = field(default_factory=list)
    """What each position's slot must hold."""

    def append(self, token_id: int) -> None:
        """One more token."""
        prefix = self.slots[-1][1] if self.slots else 0
        self.slots.append((self.salt, extend(prefix, token_id)))
        self.token_ids.append(token_id)


class ContractRunner:
    """A `ModelRunner`; `register` tells it the truth about a request before the core may compute it."""

    def __init__(self, *, num_pages: int, page_size: int, max_num_tokens: int, max_num_sequences: int) -> None:
        self._page_size = page_size
        self._max_num_tokens = max_num_tokens
        self._max_num_sequences = max_num_sequences
        self._memory: list[list[tuple[bytes, int] | None]] = [[None] * page_size for _ in range(num_pages)]
        self._known: dict[str, Known] = {}
        self._sampling: tuple[str, ...] = ()
        self.nan_request_ids: set[str] = set()
        """Requests whose logits are not numbers."""
        self.batches: list[Batch] = []

    def register(self, request: GenerationRequest) -> None:
        """A request comes, or comes again under a name that is free again."""
        known = Known(request.cache_salt, [])
        for token_id in request.token_ids:
            known.append(token_id)
        self._known[request.request_id] = known

    def was_chosen(self, row: int, token_id: int) -> None:
        """The sampler chose this token for a row of the latest logits."""
        self._known[self._sampling[row]].append(token_id)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Check the batch against the contract, write its slots, give its logits."""
        assert 0 < batch.num_tokens <= self._max_num_tokens, f"{batch.num_tokens} tokens in one step"
        assert 0 < len(batch.chunks) <= self._max_num_sequences, f"{len(batch.chunks)} sequences in one step"
        request_ids = [chunk.request_id for chunk in batch.chunks]
        assert len(set(request_ids)) == len(request_ids), "a request has two chunks in one step"
        self.batches.append(batch)
        self._check_writers(batch)
        for chunk in batch.chunks:
            self._check_chunk(chunk)
        for chunk in batch.chunks:
            for position in range(chunk.start, chunk.start + len(chunk.token_ids)):
                page_id = chunk.page_ids[position // self._page_size]
                slots = self._known[chunk.request_id].slots
                self._memory[page_id][position % self._page_size] = slots[position]
        for chunk in batch.chunks:
            self._check_reads(chunk, chunk.start + len(chunk.token_ids))
        sampling = [chunk for chunk in batch.chunks if chunk.samples]
        self._sampling = tuple(chunk.request_id for chunk in sampling)
        return torch.stack([self._logits(chunk) for chunk in sampling]) if sampling else torch.empty(0, VOCAB_SIZE)

    def _check_writers(self, batch: Batch) -> None:
        """No page that one chunk writes may be in another chunk's table."""
        users: dict[int, int] = {}
        for chunk in batch.chunks:
            assert len(set(chunk.page_ids)) == len(chunk.page_ids), "a page stands twice in one table"
            for page_id in chunk.page_ids:
                users[page_id] = users.get(page_id, 0) + 1
        for chunk in batch.chunks:
            written = chunk.page_ids[chunk.start // self._page_size :]
            assert all(users[page_id] == 1 for page_id in written), f"pages {written} are writable by two"

    def _check_chunk(self, chunk: ScheduledChunk) -> None:
        known = self._known[chunk.request_id].token_ids
        end = chunk.start + len(chunk.token_ids)
        assert chunk.token_ids, "a chunk is empty"
        assert list(chunk.token_ids) == known[chunk.start : end], f"wrong tokens for {chunk.request_id}"
        assert chunk.samples == (end == len(known)), f"{chunk.request_id} samples at {end} of {len(known)} tokens"
        assert len(chunk.page_ids) == -(-end // self._page_size), f"{len(chunk.page_ids)} pages for {end} tokens"
        self._check_reads(chunk, chunk.start)

    def _check_reads(self, chunk: ScheduledChunk, end: int) -> None:
        """Every slot of [0, end) must hold this very sequence's content."""
        slots = self._known[chunk.request_id].slots
        for begin in range(0, end, self._page_size):
            held = self._memory[chunk.page_ids[begin // self._page_size]]
            stop = min(end, begin + self._page_size)
            assert held[: stop - begin] == slots[begin:stop], f"{chunk.request_id} reads foreign KV at {begin}"

    def _logits(self, chunk: ScheduledChunk) -> torch.Tensor:
        if chunk.request_id in self.nan_request_ids:
            return torch.full((VOCAB_SIZE,), float("nan"))
        last = chunk.start + len(chunk.token_ids) - 1
        slot = self._memory[chunk.page_ids[-1]][last % self._page_size]
        assert slot is not None, "the last slot was not written"
        return logits_after(slot[1])


class ContractSampler:
    """A `TokenSampler` that tells the runner what it chose."""

    def __init__(self, runner: ContractRunner) -> None:
        self._runner = runner

    def sample(self, logits: torch.Tensor, rows: Sequence[SamplingRow]) -> tuple[SampledToken, ...]:
        """Choose by seed and position."""
        assert logits.shape == (len(rows), VOCAB_SIZE), f"logits {tuple(logits.shape)} for {len(rows)} rows"
        assert rows, "nothing to sample"
        return tuple(self._sample_row(index, logits[index], row) for index, row in enumerate(rows))

    def _sample_row(self, index: int, logits: torch.Tensor, row: SamplingRow) -> SampledToken:
        if bool(torch.isnan(logits).any()):
            return SampledToken(-1, error="nan_logits")
        num_output = len(row.output_token_ids)
        token_id = choose(logits, row.params, num_output, len(row.prompt_token_ids) + num_output)
        self._runner.was_chosen(index, token_id)
        wants_logprobs = row.params.num_logprobs is not None
        return SampledToken(token_id, TokenLogprobs(token_id, -1.0, 1) if wants_logprobs else None)


class ContractCore(EngineCore):
    """The real core; its runner learns of each request that is taken."""

    def __init__(self, config: EngineConfig, *, runner: ContractRunner, observed: ModelRunner, **options) -> None:
        super().__init__(config, runner=observed, sampler=ContractSampler(runner), **options)
        self.runner = runner

    def add(self, request: GenerationRequest) -> None:
        """Take it, then tell the runner."""
        super().add(request)
        self.runner.register(request)


class StepClock:
    """Time that passes only when it is asked for."""

    def __init__(self) -> None:
        self._time = 0.0

    def __call__(self) -> float:
        """One more second has passed."""
        self._time += 1.0
        return self._time


@dataclass(frozen=True, slots=True)
class _Observed:
    runner: ModelRunner
    before_forward: Callable[[Batch], None]

    def forward(self, batch: Batch) -> torch.Tensor:
        self.before_forward(batch)
        return self.runner.forward(batch)


def build_contract_core(
    config: EngineConfig,
    before_forward: Callable[[Batch], None] | None = None,
    now: Callable[[], float] | None = None,
) -> ContractCore:
    """Compose the real core with a runner that enforces its contract.

    Args:
        config: `num_pages` 0 means 64; `max_model_len` 0 means 256.
        before_forward: sees each batch before it is computed.
        now: the clock; by default one that ticks once per look.
    """
    num_pages = config.num_pages or 64
    runner = ContractRunner(
        num_pages=num_pages,
        page_size=config.page_size,
        max_num_tokens=config.max_num_batched_tokens,
        max_num_sequences=config.max_num_sequences,
    )
    return ContractCore(
        config,
        runner=runner,
        observed=runner if before_forward is None else _Observed(runner, before_forward),
        max_model_len=config.max_model_len or 256,
        vocab_size=VOCAB_SIZE,
        num_pages=num_pages,
        now=now or StepClock(),
    )
