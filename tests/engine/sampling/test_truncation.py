"""Truncation equals a plain reading of the rules, however wide the first look is."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.request import SamplingParams
from engine.sampling import truncation
from engine.sampling.truncation import truncate, truncates


def params(top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> SamplingParams:
    """Make parameters that truncate."""
    return SamplingParams(max_tokens=1, top_k=top_k, top_p=top_p, min_p=min_p)


def survivors(probs: torch.Tensor, one: SamplingParams) -> dict[int, float]:
    """Truncate one row."""
    (candidates,) = truncate(probs.unsqueeze(0), [one])
    pairs = zip(candidates.token_ids.tolist(), candidates.probs.tolist(), strict=True)
    return {token_id: prob for token_id, prob in pairs if prob > 0}


def naive_survivors(probs: list[float], one: SamplingParams) -> set[int]:
    """Apply the rules token by token, as their definitions read."""
    order = sorted((token_id for token_id in range(len(probs)) if probs[token_id] > 0), key=lambda t: -probs[t])
    kept = order
    if one.top_k:
        border = probs[order[min(one.top_k, len(order)) - 1]]
        kept = [token_id for token_id in order if probs[token_id] >= border]
    if one.top_p < 1.0:
        whole = math.fsum(probs[token_id] for token_id in kept) if one.top_k else 1.0
        mass, last = 0.0, kept[0]
        for token_id in kept:
            if token_id != kept[0] and not mass < one.top_p * whole:
                break
            mass += probs[token_id]
            last = token_id
        kept = [token_id for token_id in kept if probs[token_id] >= probs[last]]
    floor = float(torch.tensor(one.min_p, dtype=torch.float32) * torch.tensor(probs[order[0]], dtype=torch.float32))
    return {token_id for token_id in kept if probs[token_id] >= floor or token_id == order[0]}


RULES = st.builds(
    params,
    top_k=st.integers(0, 40),
    top_p=st.sampled_from([0.0, 1e-6, 0.1, 0.37, 0.5, 0.83, 0.95, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.2, 0.9, 1.0]),
)


@given(
    st.lists(RULES, min_size=1, max_size=5),
    st.integers(2, 60),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 0.5, 3.0, 30.0, 200.0]),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_truncation_matches_a_naive_reading(
    rules: list[SamplingParams], vocab_size: int, seed: int, spread: float, coarse: bool
) -> None:
    """Any rules, flat and peaked rows, with ties; narrow looks so that every fallback is walked."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(rules), vocab_size, generator=generator) * spread
    probs = torch.softmax(logits.round() if coarse else logits, dim=-1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truncation, "CANDIDATE_WIDTHS", (3, 10))
        found = truncate(probs, rules)
    for row, (candidates, one) in enumerate(zip(found, rules, strict=True)):
        kept = {int(t) for t, p in zip(candidates.token_ids, candidates.probs, strict=True) if p > 0}
        assert kept == naive_survivors(probs[row].tolist(), one)


@given(RULES, st.integers(0, 2**31), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_the_width_of_the_first_look_decides_nothing(one: SamplingParams, seed: int, width: int) -> None:
    """A narrow look that suffices keeps exactly what a full sort keeps."""
    probs = torch.softmax(torch.randn(50, generator=torch.Generator().manual_seed(seed)) * 2, dim=-1)
    whole = survivors(probs, one)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truncation, "CANDIDATE_WIDTHS", (width,))
        assert survivors(probs, one) == whole


def test_ties_at_the_border_all_survive() -> None:
    """Of two equally likely tokens neither is cut for standing later."""
    probs = torch.tensor([0.1, 0.2, 0.2, 0.2, 0.3])
    assert survivors(probs, params(top_k=2)).keys() == {1, 2, 3, 4}
    assert survivors(probs, params(top_p=0.4)).keys() == {1, 2, 3, 4}


def test_ties_beyond_the_first_look_count_in_what_top_p_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """top_k=2 leaves four tokens here, three of them tied; a look at three must not take those for all."""
    monkeypatch.setattr(truncation, "CANDIDATE_WIDTHS", (3,))
    probs = torch.tensor([0.3, 0.2, 0.05, 0.2, 0.05, 0.2])
    assert survivors(probs, params(top_k=2, top_p=0.4)).keys() == {0, 1, 3, 5}
    assert survivors(probs, params(top_k=2, top_p=0.3)).keys() == {0}


def test_the_most_likely_token_always_survives() -> None:
    """Even rules that would forbid everything leave one token."""
    probs = torch.tensor([0.25, 0.5, 0.25])
    assert survivors(probs, params(top_p=0.0)).keys() == {1}
    assert survivors(probs, params(min_p=1.0)).keys() == {1}


def test_only_rules_that_can_cut_count_as_truncation() -> None:
    """The defaults cut nothing."""
    assert not truncates(params())
    assert all(truncates(one) for one in (params(top_k=1), params(top_p=0.99), params(min_p=0.01)))
