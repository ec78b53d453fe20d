"""Choosing tokens: fair, repeatable, and blind to neighbours."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batch import SamplingRow
from engine.request import SamplingParams
from engine.sampler import Sampler

GREEDY = SamplingParams(max_tokens=9, temperature=0.0)
DRAWN = SamplingParams(max_tokens=9)


def row(params: SamplingParams, output: tuple[int, ...] = ()) -> SamplingRow:
    """Make a row with a prompt of three tokens."""
    return SamplingRow(params, (1, 2, 3), output)


def draws(logits: list[float], params: SamplingParams, count: int) -> np.ndarray:
    """Draw at so many positions, and count the tokens."""
    rows = [SamplingRow(params, (0,), (0,) * position) for position in range(count)]
    sampled = Sampler().sample(torch.tensor(logits).expand(count, -1).contiguous(), rows)
    return np.bincount([one.token_id for one in sampled], minlength=len(logits))


def test_greedy_takes_the_first_of_the_largest() -> None:
    """A tie is decided by the token id, in small vocabularies and in large ones."""
    for vocab_size in (5, 1000, 70_001):
        logits = torch.zeros(3, vocab_size)
        logits[0, vocab_size // 2 :] = 1.0
        logits[1, -1] = 1.0
        tokens = [one.token_id for one in Sampler().sample(logits, [row(GREEDY)] * 3)]
        assert tokens == [vocab_size // 2, vocab_size - 1, 0]


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        (DRAWN, {0, 1, 2, 3, 4, 5}),
        (replace(DRAWN, temperature=0.5), {0, 1, 2, 3, 4, 5}),
        (replace(DRAWN, temperature=3.0), {0, 1, 2, 3, 4, 5}),
        (replace(DRAWN, top_k=3), {0, 1, 2}),
        (replace(DRAWN, top_p=0.8), {0, 1, 2}),
        (replace(DRAWN, min_p=0.2), {0, 1, 2}),
        (replace(DRAWN, top_k=5, top_p=0.95, min_p=0.01, temperature=0.9), {0, 1, 2, 3}),
    ],
)
@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_draws_follow_the_distribution(params: SamplingParams, kept: set[int], seed: int) -> None:
    """A chi-square of 6,000 draws against the exact truncated softmax; each survivor and no other appears."""
    probs = np.array([0.4, 0.25, 0.2, 0.08, 0.05, 0.02])
    counts = draws(np.log(probs).tolist(), replace(params, seed=seed), 6000)
    assert set(np.flatnonzero(counts)) == kept
    shaped = probs ** (1 / params.temperature) * [token in kept for token in range(6)]
    expected = (shaped / shaped.sum() * 6000)[sorted(kept)]
    observed = counts[sorted(kept)]
    limit = {2: 13.8, 3: 16.3, 5: 20.5}[len(kept) - 1]  # exceeded once in a thousand by a fair source
    assert ((observed - expected) ** 2 / expected).sum() < limit


ROWS = st.builds(
    SamplingParams,
    max_tokens=st.just(50),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 4, 200]),
    top_p=st.sampled_from([0.2, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.1]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.2]),
    seed=st.integers(0, 2**64 - 1),
    min_tokens=st.sampled_from([0, 3]),
    eos_token_ids=st.just((0, 5)),
    num_logprobs=st.sampled_from([None, 0, 3]),
)


@given(st.lists(ROWS, min_size=2, max_size=7), st.integers(0, 2**31), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_a_row_answers_the_same_alone_and_among_neighbours(rows: list[SamplingParams], seed: int, random) -> None:
    """Token, logprobs and all, bit for bit, in any company and order; one neighbour is NaN."""
    logits = torch.randn(len(rows), 301, generator=torch.Generator().manual_seed(seed)) * 3
    logits[0, 17] = float("nan")
    requests = [row(params, (7,) * index) for index, params in enumerate(rows)]
    alone = [Sampler().sample(logits[index : index + 1], [one])[0] for index, one in enumerate(requests)]
    order = random.sample(range(len(rows)), len(rows))
    together = Sampler().sample(logits[order], [requests[index] for index in order])
    assert list(together) == [alone[index] for index in order]
    assert alone[0].error == "nan_logits"
    assert all(one.error is None for one in alone[1:])


def test_a_seed_and_a_position_decide_the_draw() -> None:
    """The same pair draws the same, another seed or position draws otherwise; torch's generator plays no part."""
    logits = torch.zeros(1, 50_000)

    def draw(seed: int, position: int) -> int:
        return Sampler().sample(logits, [row(replace(DRAWN, seed=seed), (0,) * position)])[0].token_id

    first = draw(1, 0)
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    assert draw(1, 0) == first
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len({draw(seed, position) for seed in (1, 2, 2**40) for position in (0, 1, 2)}) == 9


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("params", [GREEDY, DRAWN, replace(GREEDY, num_logprobs=2)])
def test_logits_that_are_not_finite_end_their_row_alone(poison: float, params: SamplingParams) -> None:
    """The row says so by a stable code and the others choose as ever."""
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    expected = Sampler().sample(logits, [row(params)] * 3)
    logits[1, 7] = poison
    got = Sampler().sample(logits, [row(params)] * 3)
    assert got[1].error == "nan_logits"
    assert got[1].logprobs is None
    assert (got[0], got[2]) == (expected[0], expected[2])


def test_large_finite_logits_are_no_error() -> None:
    """Logits whose sum overflows are still numbers."""
    logits = torch.full((1, 40), 3e38)
    logits[0, 9] = 3.1e38
    assert Sampler().sample(logits, [row(GREEDY)])[0].token_id == 9


@pytest.mark.parametrize(
    ("params", "code"),
    [
        (replace(GREEDY, logit_bias=((3, math.nan),)), "invalid_scores"),
        (replace(DRAWN, logit_bias=((3, math.inf),)), "invalid_scores"),
        (replace(DRAWN, temperature=math.nan), "invalid_scores"),
        (replace(GREEDY, repetition_penalty=0.0), "invalid_scores"),
        (replace(GREEDY, logit_bias=((999, 1.0),)), "token_id_out_of_range"),
        (replace(GREEDY, stop_token_ids=tuple(range(40)), min_tokens=1), "no_allowed_token"),
        (replace(DRAWN, stop_token_ids=tuple(range(40)), min_tokens=1), "no_allowed_token"),
    ],
)
def test_parameters_that_allow_no_choice_end_their_row_alone(params: SamplingParams, code: str) -> None:
    """Whatever slipped past the border stays with its own request."""
    logits = torch.rand(2, 40, generator=torch.Generator().manual_seed(1)) + 0.5
    bad, good = Sampler().sample(logits, [row(params), row(GREEDY)])
    assert bad.error == code
    assert good == Sampler().sample(logits[1:], [row(GREEDY)])[0]


def test_an_end_cannot_be_chosen_before_min_tokens_and_can_after() -> None:
    """The likeliest token is an end: it comes exactly when it may."""
    logits = torch.zeros(1, 9)
    logits[0, 4], logits[0, 6] = 5.0, 1.0
    params = replace(GREEDY, eos_token_ids=(4,), min_tokens=2)
    chosen = [Sampler().sample(logits, [row(params, (8,) * count)])[0].token_id for count in range(4)]
    assert chosen == [6, 6, 4, 4]
    ignoring = replace(params, ignore_eos=True)
    assert Sampler().sample(logits, [row(ignoring)])[0].token_id == 4


@pytest.mark.parametrize("temperature", [1e-5, 1e-4, 0.01])
def test_a_tiny_temperature_does_not_overflow(temperature: float) -> None:
    """Large logits over a small temperature would be infinite; the maximum is taken off first."""
    logits = torch.tensor([[30000.0, -30000.0, 29990.0]])
    assert Sampler().sample(logits, [row(replace(DRAWN, temperature=temperature))])[0].token_id == 0


def test_a_huge_temperature_is_uniform() -> None:
    """Every token has its turn."""
    assert (draws([0.0, 5.0, -5.0, 1.0], replace(DRAWN, temperature=1e9), 400) > 60).all()


def test_logprobs_are_of_the_raw_logits_whatever_shaped_the_choice() -> None:
    """Bias and temperature move the choice, not the report."""
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    params = replace(GREEDY, logit_bias=((0, 50.0),), num_logprobs=1)
    (got,) = Sampler().sample(logits, [row(params)])
    assert got.token_id == 0
    assert got.logprobs is not None
    assert got.logprobs.logprob == pytest.approx(float(torch.log_softmax(logits[0], 0)[0]), abs=1e-6)
    assert got.logprobs.rank == 3
    assert got.logprobs.top[0][0] == 2


def test_sampling_leaves_the_logits_as_they_were() -> None:
    """The runner's tensor is read, never written."""
    logits = torch.randn(2, 30)
    before = logits.clone()
    params = replace(DRAWN, logit_bias=((1, 9.0),), presence_penalty=1.0, top_k=3)
    Sampler().sample(logits, [row(params, (4,)), row(GREEDY)])
    assert torch.equal(logits, before)


def test_no_rows_are_no_tokens() -> None:
    """A step without a sampling chunk is legal."""
    assert Sampler().sample(torch.empty(0, 30), []) == ()
