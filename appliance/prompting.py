"""From a dialect-neutral request to what the engine is asked: pure, and every limit is applied here.

Invariants: a prompt's text never becomes a control token; every number that multiplies work is bounded before
anything is queued; the seed is known before the request is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from appliance.errors import BadRequest
from appliance.inference import Conversation, InferenceRequest, PlainText, Prompt, PromptTokens, Sampling
from appliance.served_model import ServedModel
from engine.request import SamplingParams
from policies.decision import Obligations

SeedSource: TypeAlias = Callable[[], int]
"""Draws a seed, 0 <= seed < SEED_SPACE."""

SEED_SPACE = 2**64
"""Every seed that a client may send has its own stream; a negative one is its two's complement."""
MAX_ANSWER_LOGPROBS = 2**18
"""Log-probabilities that all answers of one request may have together: about 17 MB of body, 50 MB while it is made."""
MAX_CHARACTERS_PER_TOKEN = 64
"""A prompt with more characters than this times the model's length cannot fit; it is refused before tokenization."""


@dataclass(frozen=True, slots=True)
class PlannedChoice:
    """One sequence that the engine will be asked for."""

    index: int
    token_ids: tuple[int, ...]
    params: SamplingParams


@dataclass(frozen=True, slots=True)
class PromptPlan:
    """Everything the engine will be asked for one request."""

    choices: tuple[PlannedChoice, ...]
    num_prompt_tokens: int
    """Each prompt counted once, however many choices it has."""
    seed: int
    """Of choice 0; choice k has seed + k."""
    max_tokens: int
    """Largest of the choices'."""
    prompt_texts: tuple[str, ...]
    """For `echo`; empty when it was not asked for."""


def plan_prompts(
    request: InferenceRequest, model: ServedModel, obligations: Obligations, draw_seed: SeedSource
) -> PromptPlan:
    """Tokenize the prompts and fix every parameter.

    Raises:
        BadRequest: the prompt or a parameter does not fit this model; the message gives the numbers.
    """
    _check_choices(request, model)
    sampling = request.sampling
    seed = draw_seed() if sampling.seed is None else sampling.seed % SEED_SPACE
    _check_token_ids(sampling, model)
    choices: list[PlannedChoice] = []
    num_prompt_tokens = 0
    texts: list[str] = []
    for prompt_index, prompt in enumerate(request.prompts):
        token_ids = tokenize_prompt(prompt, model)
        num_prompt_tokens += len(token_ids)
        max_tokens = _max_tokens(sampling, len(token_ids), model, obligations)
        if request.echo:
            texts.append(prompt.text if isinstance(prompt, PlainText) else model.tokenizer.decode(token_ids))
        for number in range(request.n):
            index = prompt_index * request.n + number
            params = _engine_params(sampling, model, max_tokens, (seed + index) % SEED_SPACE)
            choices.append(PlannedChoice(index, token_ids, params))
    _check_logprobs(sampling.num_logprobs, [choice.params.max_tokens for choice in choices])
    return PromptPlan(
        choices=tuple(choices),
        num_prompt_tokens=num_prompt_tokens,
        seed=seed,
        max_tokens=max(choice.params.max_tokens for choice in choices),
        prompt_texts=tuple(texts),
    )


def tokenize_prompt(prompt: Prompt, model: ServedModel) -> tuple[int, ...]:
    """Give the token ids of one prompt.

    Raises:
        BadRequest: empty, longer than the model can take, or with ids that are no text tokens.
    """
    limit = model.max_model_len
    _check_characters(prompt, limit)
    if isinstance(prompt, Conversation):
        token_ids = tuple(model.tokenizer.encode_conversation(prompt.messages))
    elif isinstance(prompt, PlainText):
        token_ids = tuple(model.tokenizer.encode(prompt.text))
    else:
        token_ids = _checked_tokens(prompt, model)
    if not token_ids:
        raise BadRequest("the prompt is empty; send at least one token", code="empty_prompt", param="prompt")
    if len(token_ids) >= limit:
        raise BadRequest(
            f"the prompt has {len(token_ids)} tokens; {model.name} takes {limit} tokens, prompt and answer together",
            code="context_length_exceeded",
            param="messages" if isinstance(prompt, Conversation) else "prompt",
        )
    return token_ids


def prompt_size(request: InferenceRequest) -> int:
    """Give the characters and token ids of all prompts, as a measure of the work to plan them."""
    return sum(_length(prompt) for prompt in request.prompts)


def _check_choices(request: InferenceRequest, model: ServedModel) -> None:
    """All choices of a request are queued at once: more than may wait would be turned away for ever."""
    num_prompts, limit = len(request.prompts), model.max_queue_len
    num_choices = num_prompts * request.n
    if num_choices > limit:
        raise BadRequest(
            f"the request asks for {num_choices} answers at once; at most {limit} may wait here",
            code="bad_value",
            param="prompt" if num_prompts > limit else "n",
        )


def _check_logprobs(num_logprobs: int | None, max_tokens: Sequence[int]) -> None:
    """Every log-probability is held until the answer is whole, and shown with its token's text and bytes."""
    if num_logprobs is None:
        return
    num_asked = sum(max_tokens) * (1 + num_logprobs)
    if num_asked > MAX_ANSWER_LOGPROBS:
        raise BadRequest(
            f"{len(max_tokens)} answers of at most {max(max_tokens)} tokens with {1 + num_logprobs} log-probabilities "
            f"each are up to {num_asked}; one request may ask for {MAX_ANSWER_LOGPROBS}: lower max_tokens, or n, or "
            "the log-probabilities of each token",
            code="bad_value",
            param="max_tokens",
        )


def _length(prompt: Prompt) -> int:
    if isinstance(prompt, PromptTokens):
        return len(prompt.token_ids)
    return len(prompt.text) if isinstance(prompt, PlainText) else sum(len(turn.content) for turn in prompt.messages)


def _check_characters(prompt: Prompt, limit: int) -> None:
    if isinstance(prompt, PromptTokens):
        return
    length = _length(prompt)
    if length > limit * MAX_CHARACTERS_PER_TOKEN:
        raise BadRequest(
            f"the prompt has {length} characters; that cannot fit into {limit} tokens",
            code="context_length_exceeded",
            param="messages" if isinstance(prompt, Conversation) else "prompt",
        )


def _checked_tokens(prompt: PromptTokens, model: ServedModel) -> tuple[int, ...]:
    special = model.tokenizer.special_token_ids
    for token_id in prompt.token_ids:
        if not 0 <= token_id < model.vocab_size:
            raise BadRequest(
                f"token id {token_id} is outside 0 to {model.vocab_size - 1}", code="bad_token_id", param="prompt"
            )
        if token_id in special:
            raise BadRequest(
                f"token id {token_id} is a control token; only the chat template may set those",
                code="control_token",
                param="prompt",
            )
    return prompt.token_ids


def _check_token_ids(sampling: Sampling, model: ServedModel) -> None:
    named = (("logit_bias", [i for i, _ in sampling.logit_bias]), ("stop_token_ids", list(sampling.stop_token_ids)))
    for param, token_ids in named:
        for token_id in token_ids:
            if not 0 <= token_id < model.vocab_size:
                raise BadRequest(
                    f"token id {token_id} is outside 0 to {model.vocab_size - 1}", code="bad_token_id", param=param
                )
    if sampling.top_k > model.vocab_size:
        raise BadRequest(f"top_k is above the vocabulary of {model.vocab_size}", code="bad_value", param="top_k")


def _max_tokens(sampling: Sampling, prompt_len: int, model: ServedModel, obligations: Obligations) -> int:
    room = model.max_model_len - prompt_len
    wanted = room if sampling.max_tokens is None else sampling.max_tokens
    if wanted > room:
        raise BadRequest(
            f"max_tokens is {wanted}, but the prompt of {prompt_len} tokens leaves {room} of {model.max_model_len}",
            code="context_length_exceeded",
            param="max_tokens",
        )
    cap = obligations.max_tokens_cap
    granted = wanted if cap is None else min(wanted, cap)
    if sampling.min_tokens > granted:
        raise BadRequest(
            f"min_tokens is {sampling.min_tokens}, more than the {granted} tokens the answer may have",
            code="bad_value",
            param="min_tokens",
        )
    return granted


def _engine_params(sampling: Sampling, model: ServedModel, max_tokens: int, seed: int) -> SamplingParams:
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        logit_bias=sampling.logit_bias,
        seed=seed,
        stop_token_ids=sampling.stop_token_ids,
        eos_token_ids=tuple(sorted(model.tokenizer.eos_token_ids)),
        min_tokens=sampling.min_tokens,
        ignore_eos=sampling.ignore_eos,
        num_logprobs=sampling.num_logprobs,
    )
