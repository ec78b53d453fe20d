"""A request and its answer, free of any dialect: what `serve.py` walks with and `api/` translates to and from.

A dialect turns its wire type into an `InferenceRequest` and the walk's answers into its own chunks or body.  It holds
back everything that says "finished" until it has `Finished`: the walk yields that only after the terminal record is
durable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from audit.event import Receipt
from engine.request import FinishReason


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt that the model's chat template renders."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class PlainText:
    """A prompt that is tokenized as it stands; special-token text in it stays text."""

    text: str


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """A prompt that is already token ids; control tokens among them are refused."""

    token_ids: tuple[int, ...]


Prompt: TypeAlias = "Conversation | PlainText | PromptTokens"


@dataclass(frozen=True, slots=True)
class Sampling:
    """The client's wishes as given; the walk caps, completes and records them."""

    max_tokens: int | None = None
    """None: as many as the model's length and the policy's cap leave."""
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    """None: the walk draws one and records it."""
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_in_output: bool = False
    min_tokens: int = 0
    ignore_eos: bool = False
    num_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One call for generation."""

    route: Literal["/v1/chat/completions", "/v1/completions"]
    model: str
    prompts: tuple[Prompt, ...]
    """One for chat; one or more for completions."""
    n: int = 1
    """Choices per prompt.  Choice index = prompt index * n + number of the choice."""
    sampling: Sampling = field(default_factory=Sampling)
    echo: bool = False
    stream: bool = False
    declared: Mapping[str, str] = field(default_factory=dict)
    """What the client says about itself (`user`, `metadata`, `safety_identifier`, ...): recorded as commitments,
    believed nowhere."""


@dataclass(frozen=True, slots=True)
class TokenText:
    """One output token as text, with its log-probability."""

    text: str
    raw: bytes
    """The token's own bytes; several tokens may share one character."""
    logprob: float
    top: tuple[tuple[str, bytes, float], ...] = ()
    """(text, raw bytes, logprob), most likely first."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text of one choice.  Whole characters only; never a part of a stop string."""

    choice_index: int
    text: str
    tokens: tuple[TokenText, ...] = ()
    """The tokens behind `text`, when logprobs were asked for; over a stream their texts concatenate to the text."""


@dataclass(frozen=True, slots=True)
class ChoiceFinish:
    """How one choice ended."""

    choice_index: int
    reason: FinishReason
    stop_reason: str | int | None = None
    """The stop string or token id of the request that ended it; None for the model's own end or the length."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens counted over all prompts and choices; each prompt is counted once."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Admission:
    """The request is recorded durably and may reach the engine."""

    request_id: str
    receipt: Receipt
    created_s: int
    """UTC, seconds; the `created` of the answer."""
    model: str
    system_fingerprint: str
    prompt_texts: tuple[str, ...] = ()
    """The prompts as text, for `echo`; empty otherwise."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The terminal record is durable; the answer may be closed."""

    choices: tuple[ChoiceFinish, ...]
    usage: Usage
    receipt: Receipt


Answer: TypeAlias = "TextDelta | Finished"
