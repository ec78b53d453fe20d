"""What a plan bounds before anything is queued."""

from __future__ import annotations

import pytest
from fake_walk import served_model

from appliance.errors import BadRequest
from appliance.inference import InferenceRequest, PlainText, Sampling
from appliance.prompting import MAX_ANSWER_LOGPROBS, plan_prompts
from policies.decision import Obligations

MODEL = served_model()


def _plan(num_prompts: int, n: int, sampling: Sampling, obligations: Obligations):
    request = InferenceRequest("/v1/completions", MODEL.name, (PlainText("x"),) * num_prompts, n=n, sampling=sampling)
    return plan_prompts(request, MODEL, obligations, lambda: 7)


@pytest.mark.parametrize(("num_prompts", "n"), [(1, 16), (16, 1), (4, 4)])
def test_log_probabilities_are_counted_over_all_answers(num_prompts: int, n: int):
    """The product of answers, tokens and log-probabilities is allowed up to its limit and refused by name above it."""
    at_limit = MAX_ANSWER_LOGPROBS // 16 // 16
    plan = _plan(num_prompts, n, Sampling(max_tokens=at_limit, num_logprobs=15), Obligations())
    assert sum(choice.params.max_tokens for choice in plan.choices) * 16 == MAX_ANSWER_LOGPROBS
    with pytest.raises(BadRequest) as refusal:
        _plan(num_prompts, n, Sampling(max_tokens=at_limit + 1, num_logprobs=15), Obligations())
    assert (refusal.value.code, refusal.value.param) == ("bad_value", "max_tokens")
    assert str((at_limit + 1) * 256) in refusal.value.message


def test_an_unstated_length_counts_as_what_would_be_granted():
    """Without max_tokens the model's room counts, or policy's cap; and without log-probabilities nothing is counted."""
    with pytest.raises(BadRequest):
        _plan(1, 16, Sampling(num_logprobs=20), Obligations())
    assert _plan(1, 16, Sampling(num_logprobs=20), Obligations(max_tokens_cap=64)).max_tokens == 64
    assert len(_plan(1, 16, Sampling(), Obligations()).choices) == 16
