"""The engine's core: requests in, one batch per step, step events out.

Promise: what a request answers depends on its tokens, parameters and seed alone.  Invariants: `plan` changes nothing,
`commit` is the only writer; an error of one row ends that request and no other; a runner or sampler that raises leaves
the books as they were before the step, but the KV memory is no longer to be trusted: the process ends.
Never: threads, clocks of its own, text, users.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.batch import ModelRunner, SampledToken, SamplingRow, TokenSampler
from engine.config import EngineConfig
from engine.errors import RequestRefused
from engine.intake import check_request
from engine.plan import Plan
from engine.request import GenerationRequest, StepEvent, TokenLogprobs
from engine.scheduler import OUT_OF_KV_MEMORY, Outcome, Scheduler
from engine.sequence import Sequence, finish_after
from engine.stats import CoreStats


class EngineCore:
    """Owned by one thread.  Composes a scheduler with a runner and a sampler."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        max_model_len: int,
        vocab_size: int,
        num_pages: int,
        runner: ModelRunner,
        sampler: TokenSampler,
        now: Callable[[], float],
    ) -> None:
        """Begin with nothing to do.

        Args:
            config: page size, budgets and the prefix cache are read from it.
            max_model_len: longest sequence in tokens, prompt and output.
            vocab_size: token ids are below it.
            num_pages: pages that the runner's KV memory really has.
            runner: computes batches.
            sampler: chooses tokens.
            now: seconds from any fixed moment, never backwards.
        """
        self._scheduler = Scheduler(config, num_pages)
        self._max_model_len = max_model_len
        self._vocab_size = vocab_size
        self._runner = runner
        self._sampler = sampler
        self._now = now

    def add(self, request: GenerationRequest) -> None:
        """Let a request wait.

        Raises:
            RequestRefused: it can never be served, or its name is taken; nothing of it was kept.
        """
        if self._scheduler.is_live(request.request_id):
            raise RequestRefused("duplicate_request_id", "choose a name that no live request has")
        check_request(request, max_model_len=self._max_model_len, vocab_size=self._vocab_size)
        self._scheduler.add(request, self._now())

    def cancel(self, request_id: str) -> None:
        """End a request with the next step, whose commit gives its pages back; an unknown name is no error."""
        self._scheduler.cancel(request_id)

    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return self._scheduler.num_live > 0

    def step(self) -> tuple[StepEvent, ...]:
        """Plan, compute, choose, commit; tell what became of whom."""
        scheduled_at = self._now()
        plan = self._scheduler.plan()
        sampled = self._compute(plan)
        computed_at = self._now()
        outcomes = tuple(map(self._judge, plan.sampling, sampled))
        self._scheduler.commit(plan, outcomes, scheduled_at)
        ends = tuple(_event(end.sequence, Outcome(None, end.finish, end.error), computed_at) for end in plan.ended)
        return ends + tuple(
            _event(sequence, outcome, computed_at, choice.logprobs)
            for sequence, outcome, choice in zip(plan.sampling, outcomes, sampled, strict=True)
        )

    def stats(self) -> CoreStats:
        """Gauges as of now."""
        return self._scheduler.stats()

    def check_integrity(self) -> None:
        """Raise AssertionError, with the sum that fails, unless the books balance; meant for idle moments."""
        self._scheduler.check_integrity()

    def _compute(self, plan: Plan) -> tuple[SampledToken, ...]:
        if not plan.batch.chunks:
            return ()
        logits = self._runner.forward(plan.batch)
        if not plan.sampling:
            return ()
        rows = tuple(
            SamplingRow(sequence.params, sequence.request.token_ids, sequence.output_token_ids)
            for sequence in plan.sampling
        )
        sampled = self._sampler.sample(logits, rows)
        assert len(sampled) == len(rows), f"{len(sampled)} tokens are chosen for {len(rows)} rows"
        return sampled

    def _judge(self, sequence: Sequence, sampled: SampledToken) -> Outcome:
        """Decide whether the sequence goes on after this token."""
        if sampled.error is not None:
            return Outcome(None, "error", sampled.error)
        finish = finish_after(sequence, sampled.token_id, self._max_model_len)
        if finish is None and not self._scheduler.fits(sequence.num_tokens + 1):
            return Outcome(sampled.token_id, "error", OUT_OF_KV_MEMORY)
        return Outcome(sampled.token_id, finish)


def _event(
    sequence: Sequence, outcome: Outcome, computed_at: float, logprobs: TokenLogprobs | None = None
) -> StepEvent:
    """Tell what a committed step did for one sequence."""
    scheduled_at = sequence.first_scheduled_at
    num_cached_tokens, queue_time_s, prefill_time_s = None, None, None
    if scheduled_at is not None and not sequence.has_sent_event:
        num_cached_tokens, queue_time_s = sequence.num_cached_tokens, scheduled_at - sequence.added_at
    if scheduled_at is not None and outcome.token_id is not None and len(sequence.output_token_ids) == 1:
        prefill_time_s = computed_at - scheduled_at
    sequence.has_sent_event = True
    return StepEvent(
        request_id=sequence.request_id,
        token_ids=() if outcome.token_id is None else (outcome.token_id,),
        logprobs=() if logprobs is None else (logprobs,),
        finish=outcome.finish,
        stop_token_id=outcome.token_id if outcome.finish == "stop" else None,
        error=outcome.error,
        num_cached_tokens=num_cached_tokens,
        queue_time_s=queue_time_s,
        prefill_time_s=prefill_time_s,
        num_preemptions=sequence.num_preemptions,
    )
