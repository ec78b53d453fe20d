"""Decides what each step computes, and keeps the books of what it did.

Invariants: `plan` changes nothing, `commit` applies exactly one plan, the latest; a live sequence waits, runs or is
about to end; pages are held by running sequences and the tree alone.  Never: tensors, clocks, the choice of a token.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence as Rows
from dataclasses import dataclass

from engine.batch import Batch
from engine.config import EngineConfig
from engine.fairness import OUTPUT_COST
from engine.kv_memory import KvMemory
from engine.plan import Admission, Advance, Ending, Plan, Planning, StepLimits, prompt_cost
from engine.request import FinishReason, GenerationRequest
from engine.sequence import Sequence, SequenceStatus
from engine.stats import CoreStats
from engine.waiting import WaitingQueue

OUT_OF_KV_MEMORY = "out_of_kv_memory"
"""The code of a request whose own tokens need more pages than the engine has."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step decided for one sequence that it sampled."""

    token_id: int | None
    """None when no token could be chosen."""
    finish: FinishReason | None = None
    error: str | None = None


@dataclass(slots=True)
class Counters:
    """What only grows; see `CoreStats`."""

    num_steps: int = 0
    last_iteration_tokens: int = 0
    prefix_cache_query_tokens: int = 0
    prefix_cache_hit_tokens: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    recomputed_tokens: int = 0
    num_preemptions: int = 0


class Scheduler:
    """Owner of memory, queues and counters.  One thread."""

    def __init__(self, config: EngineConfig, num_pages: int) -> None:
        self._memory = KvMemory(num_pages, config.page_size, enable_prefix_cache=config.enable_prefix_cache)
        self._limits = StepLimits(
            max_num_tokens=config.max_num_batched_tokens,
            max_num_running=min(config.max_num_sequences, config.max_num_batched_tokens),
        )
        self._waiting = WaitingQueue()
        self._running: list[Sequence] = []
        """By rank."""
        self._live: dict[str, Sequence] = {}
        """By request id: waiting, running or about to end."""
        self._ending: dict[str, Ending] = {}
        """By request id: what ends at the next commit."""
        self._num_arrivals = 0
        self._revision = 0
        """Commits so far; a plan is valid for one of them."""
        self._counters = Counters()

    @property
    def num_live(self) -> int:
        """Sequences that have not ended."""
        return len(self._live)

    def is_live(self, request_id: str) -> bool:
        """Whether a sequence of this name has not ended."""
        return request_id in self._live

    def fits(self, num_tokens: int) -> bool:
        """Whether so many tokens of one sequence can be computed when nothing else runs."""
        return self._memory.num_pages_for(num_tokens) <= self._memory.num_pages

    def add(self, request: GenerationRequest, added_at: float) -> None:
        """Let a request wait; one that can never fit ends at the next commit."""
        assert not self.is_live(request.request_id), "two live requests of one name"
        sequence = Sequence(request, arrival=self._num_arrivals, added_at=added_at, page_size=self._memory.page_size)
        self._num_arrivals += 1
        self._live[request.request_id] = sequence
        self._waiting.add(sequence)
        if not self.fits(sequence.num_tokens):
            self._end_at_commit(sequence, "error", OUT_OF_KV_MEMORY)

    def cancel(self, request_id: str) -> None:
        """End a live sequence at the next commit; it is not part of any plan from now on."""
        if request_id in self._live and request_id not in self._ending:
            self._end_at_commit(self._live[request_id], "cancelled", None)

    def plan(self) -> Plan:
        """Decide the next step.  Changes nothing."""
        running = (sequence for sequence in self._running if sequence.request_id not in self._ending)
        planning = Planning(self._memory, self._waiting, running, self._limits)
        for ending in self._ending.values():
            if ending.sequence.status is SequenceStatus.RUNNING:
                planning.forecast.release(ending.sequence)
        planning.run()
        assert planning.advances or self._ending or not self._live, (
            f"{len(self._live)} live sequences and nothing to do: {len(self._running)} run, {len(self._waiting)} wait, "
            f"{planning.forecast.num_available} of {self._memory.num_pages} pages available"
        )
        return Plan(
            revision=self._revision,
            batch=Batch(tuple(advance.chunk for advance in planning.advances)),
            advances=tuple(planning.advances),
            admitted=tuple(planning.admitted),
            preempted=tuple(planning.preempted),
            evicted=tuple(planning.forecast.evicted),
            ended=tuple(self._ending.values()),
        )

    def commit(self, plan: Plan, outcomes: Rows[Outcome], scheduled_at: float) -> None:
        """Make true what was planned, computed and chosen.

        Args:
            plan: the latest one, computed.
            outcomes: one for each of `plan.sampling`, in that order.
            scheduled_at: when the plan was made.
        """
        assert plan.revision == self._revision, f"plan {plan.revision} is committed after {self._revision} commits"
        self._revision += 1
        self._counters.num_steps += 1
        self._counters.last_iteration_tokens = plan.batch.num_tokens
        for ending in plan.ended:
            del self._ending[ending.sequence.request_id]
            self._end(ending.sequence)
        for sequence in plan.preempted:
            self._preempt(sequence)
        for admission in plan.admitted:
            self._admit(admission, scheduled_at)
        self._memory.tree.evict(plan.evicted)
        for advance in plan.advances:
            self._advance(advance)
        for sequence, outcome in zip(plan.sampling, outcomes, strict=True):
            self._append(sequence, outcome)

    def stats(self) -> CoreStats:
        """Gauges as of now."""
        memory = self._memory
        num_live_slots = memory.num_live_pages * memory.page_size
        num_unused_slots = sum(
            len(sequence.page_ids) * memory.page_size - sequence.num_computed for sequence in self._running
        )
        counters = self._counters
        return CoreStats(
            num_running=len(self._running),
            num_waiting=len(self._live) - len(self._running),
            num_pages=memory.num_pages,
            num_free_pages=memory.pool.num_free,
            num_cached_pages=memory.tree.num_unlocked,
            kv_usage_perc=memory.num_live_pages / memory.num_pages,
            kv_waste_perc=num_unused_slots / num_live_slots if num_live_slots else 0.0,
            num_steps=counters.num_steps,
            last_iteration_tokens=counters.last_iteration_tokens,
            prefix_cache_query_tokens=counters.prefix_cache_query_tokens,
            prefix_cache_hit_tokens=counters.prefix_cache_hit_tokens,
            prompt_tokens=counters.prompt_tokens,
            generation_tokens=counters.generation_tokens,
            recomputed_tokens=counters.recomputed_tokens,
            num_preemptions=counters.num_preemptions,
        )

    def check_integrity(self) -> None:
        """Raise AssertionError, with the sum that fails, unless the books balance."""
        self._memory.check_integrity(self._running)
        assert self._running == sorted(self._running, key=lambda sequence: sequence.rank), "running out of rank"
        num_ending = sum(ending.sequence.status is SequenceStatus.WAITING for ending in self._ending.values())
        assert len(self._live) == len(self._running) + len(self._waiting) + num_ending, (
            f"sequences are lost: {len(self._live)} live != {len(self._running)} run + {len(self._waiting)} wait "
            f"+ {num_ending} end"
        )

    def _end_at_commit(self, sequence: Sequence, finish: FinishReason, error: str | None) -> None:
        if sequence.status is SequenceStatus.WAITING:
            self._waiting.take_out(sequence)
        self._ending[sequence.request_id] = Ending(sequence, finish, error)

    def _admit(self, admission: Admission, scheduled_at: float) -> None:
        sequence = admission.sequence
        if sequence.first_scheduled_at is None:
            sequence.first_scheduled_at = scheduled_at
            sequence.num_cached_tokens = admission.num_cached_tokens
            self._waiting.choose(sequence, prompt_cost(admission))
            if self._memory.shares_pages:
                self._counters.prefix_cache_query_tokens += sequence.num_tokens
                self._counters.prefix_cache_hit_tokens += admission.num_cached_tokens
        else:
            self._waiting.take_out(sequence)
        sequence.num_computed_ever = max(sequence.num_computed_ever, admission.num_cached_tokens)
        sequence.status = SequenceStatus.RUNNING
        insort(self._running, sequence, key=lambda running: running.rank)
        self._memory.attach(sequence, admission.match)

    def _advance(self, advance: Advance) -> None:
        sequence = advance.sequence
        if advance.new_page_ids:
            self._memory.extend(sequence, advance.new_page_ids)
        sequence.num_computed += len(advance.chunk.token_ids)
        num_new = max(0, sequence.num_computed - sequence.num_computed_ever)
        num_prompt = len(sequence.request.token_ids)
        self._counters.recomputed_tokens += len(advance.chunk.token_ids) - num_new
        self._counters.prompt_tokens += max(0, min(sequence.num_computed, num_prompt) - sequence.num_computed_ever)
        sequence.num_computed_ever += num_new
        if not advance.chunk.samples:  # the others wait for what the sampler says of their logits
            self._memory.share_full_pages(sequence)

    def _append(self, sequence: Sequence, outcome: Outcome) -> None:
        if outcome.token_id is None:
            self._memory.release_untrusted(sequence)
            self._leave(sequence)
            return
        self._memory.share_full_pages(sequence)
        sequence.output_token_ids.append(outcome.token_id)
        self._counters.generation_tokens += 1
        self._waiting.charge(sequence, OUTPUT_COST)
        if outcome.finish is not None:
            self._end(sequence)

    def _preempt(self, sequence: Sequence) -> None:
        self._memory.release(sequence)
        self._running.remove(sequence)
        sequence.status = SequenceStatus.WAITING
        sequence.num_preemptions += 1
        self._counters.num_preemptions += 1
        self._waiting.put_back(sequence)

    def _end(self, sequence: Sequence) -> None:
        if sequence.status is SequenceStatus.RUNNING:
            self._memory.release(sequence)
        self._leave(sequence)

    def _leave(self, sequence: Sequence) -> None:
        if sequence.status is SequenceStatus.RUNNING:
            self._running.remove(sequence)
        sequence.status = SequenceStatus.FINISHED
        del self._live[sequence.request_id]
        self._waiting.leave(sequence)
