"""What crosses the engine's border: requests in, step events out.  Token ids only; frozen values.

Stop *strings* do not appear here: they need text, and text is the caller's.  The caller finds them while it
decodes and cancels.  `n` choices are `n` requests; the prefix cache makes the shared prompt cost one prefill.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled", "error"]
NAN_LOGITS = "nan_logits"
"""The error of a request whose scores are not finite: a fault of the model, its weights or the arithmetic."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen and when generation ends.

    The random numbers of a request depend on `seed` and the position alone, never on its neighbours.
    Penalties follow the field's usual definitions: presence and frequency look at output tokens,
    repetition at prompt and output tokens.
    """

    max_tokens: int
    temperature: float = 1.0
    """0 is greedy: the first of the largest logits."""
    top_k: int = 0
    """0 keeps all."""
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    """64-bit unsigned; the caller always chooses one, so that it can be recorded."""
    stop_token_ids: tuple[int, ...] = ()
    """Ends of generation that the *request* named."""
    eos_token_ids: tuple[int, ...] = ()
    """Ends of generation of the *model*; `ignore_eos` switches these off, and only these."""
    min_tokens: int = 0
    """Before so many output tokens no stop or eos token can be chosen."""
    ignore_eos: bool = False
    num_logprobs: int | None = None
    """None: no logprobs.  0: the chosen token's alone.  k: the k most likely ones as well.

    Logprobs are of the log-softmax of the raw logits, before temperature, penalties and truncation.
    """


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One sequence to generate."""

    request_id: str
    """Unique among the live requests of this engine."""
    token_ids: tuple[int, ...]
    """The prompt; at least one token."""
    params: SamplingParams
    cache_salt: bytes = b""
    """Root of the prefix tree: two requests share cached pages only if their salts are equal."""
    fairness_key: str = ""
    """Opaque name under which waiting time is shared out."""
    priority: int = 0
    """Higher runs first and is preempted last."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities at one output position."""

    token_id: int
    logprob: float
    rank: int
    """1 for the most likely token."""
    top: tuple[tuple[int, float], ...] = ()
    """(token id, logprob), most likely first, `num_logprobs` long."""


@dataclass(frozen=True, slots=True)
class StepEvent:
    """What one step did for one request."""

    request_id: str
    token_ids: tuple[int, ...] = ()
    """New output tokens.  A chosen stop or eos token is included."""
    logprobs: tuple[TokenLogprobs, ...] = ()
    """As long as `token_ids` when the request asked for logprobs, else empty."""
    finish: FinishReason | None = None
    stop_token_id: int | None = None
    """The token that ended generation, when `finish` is "stop"."""
    error: str | None = None
    """A stable code when `finish` is "error"; never text of a library."""
    num_cached_tokens: int | None = None
    """Prompt tokens taken from the prefix cache; set on the first event of a request."""
    queue_time_s: float | None = None
    """Seconds between the engine's receipt and first scheduling; set on the first event of a request."""
    prefill_time_s: float | None = None
    """Seconds between first scheduling and the first output token; set on the event that brings that token."""
    num_preemptions: int = 0
    """How often the request was preempted so far."""


@dataclass(frozen=True, slots=True)
class SequenceUsage:
    """What the engine has given for one sequence, or for several: a sum."""

    num_prompt_tokens: int = 0
    """Of a prompt whose first event came, cached ones among them."""
    num_cached_tokens: int = 0
    num_output_tokens: int = 0

    def plus(self, other: SequenceUsage) -> SequenceUsage:
        """Give the sum."""
        return SequenceUsage(
            self.num_prompt_tokens + other.num_prompt_tokens,
            self.num_cached_tokens + other.num_cached_tokens,
            self.num_output_tokens + other.num_output_tokens,
        )

    @classmethod
    def of_event(cls, event: StepEvent, num_prompt_tokens: int) -> SequenceUsage:
        """Give what one event brings; the first one of its sequence brings the prompt."""
        if event.num_cached_tokens is None:
            return cls(num_output_tokens=len(event.token_ids))
        return cls(num_prompt_tokens, event.num_cached_tokens, len(event.token_ids))


NO_USAGE = SequenceUsage()
