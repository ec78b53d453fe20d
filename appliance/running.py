"""An admitted request on its way to its terminal record.

The walk's task owns it; the connection only reads `answers` and may `abandon`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from appliance.choice_text import ChoiceText
from appliance.errors import ApplianceError, Unavailable
from appliance.gate import Asking
from appliance.inference import Admission, Answer, ChoiceFinish, Finished, InferenceRequest, TextDelta, Usage
from appliance.prompting import PromptPlan
from appliance.served_model import ServedModel
from engine.request import NO_USAGE, SequenceUsage, StepEvent
from policies.decision import Allow


class GenerationStream(Protocol):
    """One sequence inside the engine: its events in order, the last one with `finish`."""

    def __aiter__(self) -> AsyncIterator[StepEvent]:
        """Iterate over the events, once."""
        ...

    def cancel(self) -> None:
        """End it at the next step boundary; the final event still comes."""
        ...

    def claim(self) -> SequenceUsage:
        """Take account of what the engine has given, read or not; a second claim gives the same."""
        ...


class TokenMetrics(Protocol):
    """Is told when tokens came; `appliance.metrics.ServingMetrics` is."""

    def first_token(self, seconds: float) -> None:
        """Take the time from admission's start to a sequence's first token."""
        ...

    def next_tokens(self, seconds: float, num_tokens: int) -> None:
        """Take the time between two events of a sequence, the later of which brought so many tokens."""
        ...


class Running:
    """One admitted request."""

    def __init__(
        self,
        asking: Asking,
        request: InferenceRequest,
        plan: PromptPlan,
        model: ServedModel,
        allow: Allow,
        started_ns: int,
    ) -> None:
        self.asking = asking
        self.request = request
        self.plan = plan
        self.allow = allow
        self.started_ns = started_ns
        self.choices = tuple(
            ChoiceText(
                choice.index,
                model.tokenizer,
                stops=request.sampling.stop,
                min_tokens=request.sampling.min_tokens,
                include_stop=request.sampling.include_stop_in_output,
                logprobs=request.sampling.num_logprobs is not None,
            )
            for choice in plan.choices
        )
        self.subject_key_id: str | None = None
        """The key that the admission's commitments were made under; the end uses this one or none."""
        self.streams: list[GenerationStream] = []
        self.abandoned: str | None = None
        """Why nobody waits for the answer any more."""
        self.failure: ApplianceError | None = None
        """What ended it from our own side: a full queue, or a fault of ours."""
        self._admission: Admission | None = None
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the choices are queued, or with the reason why there will be no answer."""
        self._first_token_ns: dict[int, int] = {}
        """Choice index -> time of its first token."""
        self._last_token_ns: dict[int, int] = {}
        """Choice index -> time of its latest token."""
        self._answers: asyncio.Queue[Answer | ApplianceError] = asyncio.Queue()
        """Bounded by the max_tokens of every choice, plus one closing item."""

    @property
    def admission(self) -> Admission:
        """The durable admission."""
        assert self._admission is not None, f"request {self.asking.request_id} is not admitted yet"
        return self._admission

    async def admitted(self) -> None:
        """Wait until the choices are queued.

        Raises:
            ApplianceError: it was not admitted, or admitted and turned away.
        """
        await asyncio.shield(self._opened)

    def admit(self, admission: Admission) -> None:
        """Take the durable admission."""
        self._admission = admission

    def open(self) -> None:
        """Let the caller go on: every choice is queued."""
        self._opened.set_result(None)

    def refuse(self, reason: ApplianceError) -> None:
        """Tell the caller that there will be no answer."""
        self._opened.set_exception(reason)
        self._opened.exception()  # whoever waited may have gone; then nobody is left to be told

    def fail(self, failure: ApplianceError) -> None:
        """Note that our own side ends it, and cancel what was queued."""
        self.failure = failure
        self.cancel()

    async def answers(self) -> AsyncIterator[Answer]:
        """Give the answer as it comes; the last item is `Finished`.

        Raises:
            ApplianceError: instead of `Finished`, when there is no finished answer.
        """
        while True:
            answer = await self._answers.get()
            if isinstance(answer, ApplianceError):
                raise answer
            yield answer
            if isinstance(answer, Finished):
                return

    def abandon(self, reason: str) -> None:
        """Say that nobody waits any more: the engine stops within one step, the record is written all the same."""
        if self.abandoned is None:
            self.abandoned = reason
            self.cancel()

    def cancel(self) -> None:
        """Cancel every choice that was queued and still runs."""
        for choice, stream in zip(self.choices, self.streams, strict=False):
            if choice.finish is None:
                stream.cancel()

    def give(self, delta: TextDelta) -> None:
        """Hand new text to whoever reads the answers."""
        self._answers.put_nowait(delta)

    def close(self, last: Finished | ApplianceError) -> None:
        """End the answers.  Called once, after the terminal record or its failure."""
        if not self._opened.done():
            self.refuse(last if isinstance(last, ApplianceError) else _nobody_waited())
        self._answers.put_nowait(last)

    def note_tokens(self, index: int, now_ns: int, num_tokens: int, metrics: TokenMetrics) -> None:
        """Take the time of new tokens of one choice."""
        last_ns = self._last_token_ns.get(index)
        if last_ns is None:
            self._first_token_ns[index] = now_ns
            metrics.first_token((now_ns - self.started_ns) / 1e9)
        else:
            metrics.next_tokens((now_ns - last_ns) / 1e9, num_tokens)
        self._last_token_ns[index] = now_ns

    def decode_s(self, index: int) -> float:
        """Seconds between the first and the latest token of one choice, which has one."""
        return (self._last_token_ns[index] - self._first_token_ns[index]) / 1e9

    def queue_ms(self) -> int | None:
        """Longest wait of a choice in the engine's queue."""
        waits = [choice.queue_time_s for choice in self.choices if choice.queue_time_s is not None]
        return round(max(waits) * 1000) if waits else None

    def first_token_ms(self) -> int | None:
        """From admission's start to the first token."""
        first_ns = min(self._first_token_ns.values(), default=None)
        return None if first_ns is None else (first_ns - self.started_ns) // 1_000_000

    def finishes(self) -> tuple[ChoiceFinish, ...]:
        """How every choice ended, in order."""
        return tuple(choice.finish for choice in self.choices if choice.finish is not None)

    def usage(self) -> Usage:
        """Tokens so far.  A prompt's cached tokens are those of its first choice: the others ride on that one."""
        first_choices = self.choices[:: self.request.n]
        return Usage(
            prompt_tokens=self.plan.num_prompt_tokens,
            completion_tokens=sum(choice.num_tokens for choice in self.choices),
            cached_tokens=sum(choice.num_cached_tokens or 0 for choice in first_choices),
        )

    def engine_usage(self) -> SequenceUsage:
        """Take account of what the engine has given for every choice, whether it became part of an answer or not.

        For the terminal record: together with every other record of the run it must give the engine's own sums.
        """
        usage = NO_USAGE
        for stream in self.streams:
            usage = usage.plus(stream.claim())
        return usage


def _nobody_waited() -> ApplianceError:
    return Unavailable("the request ended before it was queued", code="client_closed")
