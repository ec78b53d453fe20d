"""Step events of one choice -> text that may be shown, and how the choice ended.

Invariants: text leaves here in whole characters, never with a part of the stop string that ends it; a stop string
counts where its last character comes from a token after the first `min_tokens`, as in vLLM; a token leaves together
with the last of its characters, so the texts of the tokens that left concatenate to the text that left; after the
choice has ended nothing leaves any more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from appliance.inference import ChoiceFinish, TextDelta, TokenText
from appliance.text.incremental import IncrementalDecoder
from appliance.text.stops import StopMatcher
from appliance.text.tokenizer import ModelTokenizer
from engine.request import FinishReason, StepEvent, TokenLogprobs


class ChoiceText:
    """The text of one choice, as far as it is known.  Owned by the task that pumps the choice."""

    def __init__(
        self,
        index: int,
        tokenizer: ModelTokenizer,
        *,
        stops: tuple[str, ...],
        min_tokens: int,
        include_stop: bool,
        logprobs: bool,
    ) -> None:
        self.index = index
        self.finish: ChoiceFinish | None = None
        self.error: str | None = None
        """Stable code of the engine's error, when that ended the choice."""
        self.token_ids: list[int] = []
        """What the engine chose until the choice ended, a token that ended it included."""
        self.num_cached_tokens: int | None = None
        self.num_preemptions = 0
        self.queue_time_s: float | None = None
        self.prefill_time_s: float | None = None
        self._tokenizer = tokenizer
        self._decoder = IncrementalDecoder(tokenizer)
        self._stops = StopMatcher(stops, include_stop=include_stop)
        self._min_tokens = min_tokens
        self._include_stop = include_stop
        self._logprobs = logprobs
        self._held: deque[TokenText] = deque()
        """Tokens whose last character has not left yet."""
        self._ahead = 0
        """Characters of the first held token that have left already."""
        self._parts: list[str] = []

    @property
    def num_tokens(self) -> int:
        """Output tokens so far."""
        return len(self.token_ids)

    @property
    def text(self) -> str:
        """All text that has left."""
        return "".join(self._parts)

    def has_ended(self) -> bool:
        """Whether no text will leave any more."""
        return self.finish is not None

    @property
    def failed(self) -> bool:
        """Whether the engine gave this choice up."""
        return self.finish is not None and self.finish.reason == "error"

    def take(self, event: StepEvent) -> TextDelta | None:
        """Take one step's event in; give the text that may leave now, if any."""
        assert not self.has_ended(), f"choice {self.index} has ended with {self.finish}"
        if event.num_cached_tokens is not None:
            self.num_cached_tokens = event.num_cached_tokens
        if event.queue_time_s is not None:
            self.queue_time_s = event.queue_time_s
        if event.prefill_time_s is not None:
            self.prefill_time_s = event.prefill_time_s
        self.num_preemptions = event.num_preemptions
        released = ""
        for position, token_id in enumerate(event.token_ids):
            self.token_ids.append(token_id)
            ends_here = event.finish == "stop" and position == len(event.token_ids) - 1
            if ends_here and not self._include_stop:
                break  # the token that ended it is not part of the answer
            text = self._decoder.push(token_id)
            self._hold(text, event.logprobs[position] if self._logprobs else None)
            released += self._match(text)
            if self.has_ended():
                return self._delta(released)
        if event.finish is not None:
            released += self._close(event.finish, event.stop_token_id)
            self.error = event.error
        return self._delta(released)

    def _match(self, text: str) -> str:
        matched = self._stops.push(text, may_stop=self.num_tokens > self._min_tokens)
        if matched.stop is not None:
            self.finish = ChoiceFinish(self.index, "stop", matched.stop)
        return matched.text

    def _close(self, reason: FinishReason, stop_token_id: int | None) -> str:
        tail = self._decoder.flush()
        if tail and self._held:
            self._held[-1] = replace(self._held[-1], text=self._held[-1].text + tail)
        released = self._match(tail)
        if self.finish is None:
            released += self._stops.flush()
            own_end = stop_token_id in self._tokenizer.eos_token_ids
            self.finish = ChoiceFinish(self.index, reason, None if own_end else stop_token_id)
        return released

    def _hold(self, text: str, logprobs: TokenLogprobs | None) -> None:
        if logprobs is None:
            return
        self._held.append(
            TokenText(
                text=text,
                raw=self._tokenizer.token_bytes(logprobs.token_id),
                logprob=logprobs.logprob,
                top=tuple(
                    (self._tokenizer.token_text(token_id), self._tokenizer.token_bytes(token_id), logprob)
                    for token_id, logprob in logprobs.top
                ),
            )
        )

    def _delta(self, released: str) -> TextDelta | None:
        self._parts.append(released)
        tokens: list[TokenText] = []
        budget = self._ahead + len(released)
        while self._held and len(self._held[0].text) <= budget:
            budget -= len(self._held[0].text)
            tokens.append(self._held.popleft())
        self._ahead = budget
        if self.finish is not None and self._held and budget:
            tokens.append(replace(self._held[0], text=self._held[0].text[:budget]))  # a stop string cut it
        if self.finish is not None:
            self._held.clear()
        if not released and not tokens:
            return None
        return TextDelta(self.index, released, tuple(tokens))
