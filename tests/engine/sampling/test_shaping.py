"""Penalties, bias and min_tokens against a token-by-token reading of their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batch import SamplingRow
from engine.request import SamplingParams
from engine.sampling.shaping import changes_scores, shape_scores

VOCAB_SIZE = 23
TOKENS = st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=12)
PENALTY = st.sampled_from([-2.0, -0.3, 0.0, 0.7, 2.0])
PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.just(50),
    presence_penalty=PENALTY,
    frequency_penalty=PENALTY,
    repetition_penalty=st.sampled_from([0.5, 1.0, 1.3, 10.0]),
    logit_bias=st.lists(
        st.tuples(st.integers(0, VOCAB_SIZE - 1), st.floats(-100, 100, width=32)), max_size=4, unique_by=lambda b: b[0]
    ).map(tuple),
    stop_token_ids=TOKENS.map(tuple),
    eos_token_ids=TOKENS.map(tuple),
    min_tokens=st.integers(0, 14),
    ignore_eos=st.booleans(),
)


def naive_scores(logits: list[float], params: SamplingParams, prompt: list[int], output: list[int]) -> list[float]:
    """Apply every rule to one token after another, in the documented order."""
    scores = []
    for token_id, logit in enumerate(logits):
        score = logit + sum(bias for biased, bias in params.logit_bias if biased == token_id)
        ends = params.stop_token_ids + (() if params.ignore_eos else params.eos_token_ids)
        if len(output) < params.min_tokens and token_id in ends:
            score = -math.inf
        if token_id in prompt or token_id in output:
            score = score / params.repetition_penalty if score > 0 else score * params.repetition_penalty
        if token_id in output:
            score -= params.frequency_penalty * output.count(token_id) + params.presence_penalty
        scores.append(score)
    return scores


@given(PARAMS, TOKENS, TOKENS, st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_shaping_matches_a_naive_reading(
    params: SamplingParams, prompt: list[int], output: list[int], seed: int
) -> None:
    """Any rules over any history, to the last few bits; and a row that is called unchanged is unchanged."""
    logits = torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(seed)) * 5
    row = SamplingRow(params, prompt, output)
    scores = logits.clone()
    assert shape_scores(scores, row) is None
    expected = torch.tensor(naive_scores(logits.tolist(), params, prompt, output))
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-5)
    if not changes_scores(row):
        assert torch.equal(scores, logits)


@pytest.mark.parametrize("token_id", [-1, VOCAB_SIZE, 2**40])
def test_a_bias_outside_the_vocabulary_is_an_error_of_the_row(token_id: int) -> None:
    """It neither wraps around nor raises."""
    row = SamplingRow(SamplingParams(max_tokens=1, logit_bias=((token_id, 1.0),)), [0], [])
    assert shape_scores(torch.zeros(VOCAB_SIZE), row) == "token_id_out_of_range"


def test_an_end_outside_the_vocabulary_is_never_chosen_anyway() -> None:
    """Nothing has to be masked for it, and nothing else is."""
    row = SamplingRow(SamplingParams(max_tokens=1, min_tokens=1, stop_token_ids=(-1, VOCAB_SIZE)), [0], [])
    scores = torch.zeros(VOCAB_SIZE)
    assert shape_scores(scores, row) is None
    assert torch.equal(scores, torch.zeros(VOCAB_SIZE))
