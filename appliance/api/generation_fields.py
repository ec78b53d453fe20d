"""The fields that both OpenAI dialects share, with vLLM's additions, and their one translation to `Sampling`.

The bounds here keep a request from being absurd; what a caller may have is policy's to say, and what fits the model is
the walk's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Discriminator, Field, Tag

from appliance.api.wire import Label, OnlyFalse, WireModel, refuse
from appliance.errors import BadRequest
from appliance.inference import Sampling

MAX_CHOICES = 16
MAX_TOKENS = 1_000_000
MAX_TOP_LOGPROBS = 20
LEAST_REPETITION_PENALTY = 0.01
"""Scores are divided by it: a number near zero makes them infinite, and the engine would have to give up."""
TOP_K_OFF = -1
"""vLLM's way to say: keep all."""
SEED_SPACE = 2**64

StopString = Annotated[str, Field(min_length=1, max_length=256)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Bias = Annotated[float, Field(ge=-100, le=100)]
TokenIdText = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,8})$")]
"""A token id as a JSON key; one spelling only, so that one token cannot have two biases."""


def _stop_kind(value: object) -> str:
    return "list" if isinstance(value, list) else "string"


Stop = Annotated[
    Annotated[StopString, Tag("string")] | Annotated[list[StopString], Field(min_length=1, max_length=4), Tag("list")],
    Discriminator(_stop_kind),
]


def _known_top_k(value: int) -> int:
    if value < TOP_K_OFF:
        raise refuse("must be -1 or 0 for all, or the number of tokens to keep")
    return value


class StreamOptions(WireModel):
    """`stream_options`."""

    include_usage: bool | None = None
    include_obfuscation: OnlyFalse | None = None
    """Padding is not made here."""


class GenerationFields(WireModel):
    """Base of both request bodies."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    # How the next token is chosen.
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(le=2**31 - 1), AfterValidator(_known_top_k)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(ge=LEAST_REPETITION_PENALTY, le=10)] | None = None
    logit_bias: Annotated[dict[TokenIdText, Bias], Field(max_length=300)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    # When it ends.
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    stop: Stop | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64)] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    # How it is answered.
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # What the client says about itself.
    user: Label | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def check_stream_options(self) -> None:
        """Refuse options of a stream that was not asked for, as OpenAI does."""
        if self.stream_options is not None and not self.stream:
            raise BadRequest("stream_options needs stream to be true", code="bad_value", param="stream_options")

    def sampling(self, *, max_tokens: int | None, num_logprobs: int | None) -> Sampling:
        """Give the client's wishes in the walk's terms; null is the same as absent."""
        stop = self.stop
        return Sampling(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=max(self.top_k or 0, 0),
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
            logit_bias=_biases(self.logit_bias or {}),
            seed=None if self.seed is None else self.seed % SEED_SPACE,
            stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(dict.fromkeys(stop)),
            stop_token_ids=tuple(dict.fromkeys(self.stop_token_ids or ())),
            include_stop_in_output=bool(self.include_stop_str_in_output),
            min_tokens=self.min_tokens or 0,
            ignore_eos=bool(self.ignore_eos),
            num_logprobs=num_logprobs,
        )


def _biases(given: Mapping[str, float]) -> tuple[tuple[int, float], ...]:
    return tuple(sorted((int(token_id), float(bias)) for token_id, bias in given.items()))
