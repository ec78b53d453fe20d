"""What the core refuses before anything of it is kept: a request that could harm a step or can never be answered.

The API says the same earlier and in its own words; the engine does not rely on it, because one bad row in a batch
would reach every other row.  Codes: `duplicate_request_id`, `empty_prompt`, `prompt_too_long`,
`token_out_of_vocabulary`, `invalid_parameter`.
"""

from __future__ import annotations

import math

from engine.errors import RequestRefused
from engine.request import GenerationRequest, SamplingParams

MAX_SEED = 2**64 - 1


def check_request(request: GenerationRequest, *, max_model_len: int, vocab_size: int) -> None:
    """Raise RequestRefused unless the request can be served by some step.

    Args:
        request: as it came.
        max_model_len: longest sequence in tokens, prompt and output.
        vocab_size: token ids are below it.
    """
    if not request.token_ids:
        raise RequestRefused("empty_prompt", "send at least one token")
    if len(request.token_ids) >= max_model_len:
        raise RequestRefused(
            "prompt_too_long",
            f"the prompt has {len(request.token_ids)} tokens; at most {max_model_len - 1} leave room for an answer",
        )
    _check_token_ids(request, vocab_size)
    for name, is_valid, rule in _rules(request.params, vocab_size):
        if not is_valid:
            raise RequestRefused("invalid_parameter", f"{name} {rule}")


def _check_token_ids(request: GenerationRequest, vocab_size: int) -> None:
    params = request.params
    token_ids = {
        "the prompt": request.token_ids,
        "stop_token_ids": params.stop_token_ids,
        "eos_token_ids": params.eos_token_ids,
        "logit_bias": tuple(token_id for token_id, _ in params.logit_bias),
    }
    for name, ids in token_ids.items():
        if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
            raise RequestRefused("token_out_of_vocabulary", f"{name} names a token outside 0 to {vocab_size - 1}")


def _rules(params: SamplingParams, vocab_size: int) -> tuple[tuple[str, bool, str], ...]:
    """Give (field, whether it holds, what must hold); a NaN fails every comparison."""
    return (
        ("max_tokens", params.max_tokens >= 1, "must be at least 1"),
        ("min_tokens", 0 <= params.min_tokens <= params.max_tokens, "must be from 0 to max_tokens"),
        ("temperature", 0 <= params.temperature < math.inf, "must be a number, 0 or larger"),
        ("top_k", params.top_k >= 0, "must be 0 or larger"),
        ("top_p", 0 < params.top_p <= 1, "must be above 0 and at most 1"),
        ("min_p", 0 <= params.min_p <= 1, "must be from 0 to 1"),
        ("presence_penalty", math.isfinite(params.presence_penalty), "must be a finite number"),
        ("frequency_penalty", math.isfinite(params.frequency_penalty), "must be a finite number"),
        ("repetition_penalty", 0 < params.repetition_penalty < math.inf, "must be a number above 0"),
        ("logit_bias", all(math.isfinite(bias) for _, bias in params.logit_bias), "must be finite numbers"),
        ("seed", 0 <= params.seed <= MAX_SEED, "must be an unsigned 64-bit number"),
        (
            "num_logprobs",
            params.num_logprobs is None or 0 <= params.num_logprobs <= vocab_size,
            "must be from 0 to the size of the vocabulary",
        ),
    )
