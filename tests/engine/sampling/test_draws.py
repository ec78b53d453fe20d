"""Random numbers are a function of seed, position and token id, and they look random."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling.draws import draw_key, exponential_noise

CHI_SQUARE_99_9 = {9: 27.9, 15: 37.7, 31: 61.1, 63: 103.4}
"""Degrees of freedom to the value that a fair source exceeds once in a thousand."""


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """Measure how far counts are from what is expected."""
    return float(((counts - expected) ** 2 / expected).sum())


def noise_of(seed: int, position: int, token_ids: list[int]) -> torch.Tensor:
    """Draw one row."""
    return exponential_noise([draw_key(seed, position)], torch.tensor([token_ids]))[0]


@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**20),
    st.lists(st.integers(0, 200_000), min_size=1, max_size=20, unique=True),
    st.randoms(use_true_random=False),
)
@settings(max_examples=50, deadline=None)
def test_a_draw_knows_its_seed_position_and_token_alone(seed: int, position: int, token_ids: list[int], random) -> None:
    """Neither order nor neighbours nor other rows change a number, and a second call gives it again."""
    alone = {token_id: noise_of(seed, position, [token_id]).item() for token_id in token_ids}
    shuffled = random.sample(token_ids, len(token_ids))
    other = draw_key(seed ^ 1, position)
    both = exponential_noise([other, draw_key(seed, position)], torch.tensor([token_ids, shuffled]))
    assert both[1].tolist() == [alone[token_id] for token_id in shuffled]


def test_noise_is_exponential() -> None:
    """A chi-square over 64 equal shares of the exponential law, 200,000 draws of one key."""
    noise = noise_of(1, 2, list(range(200_000))).double().numpy()
    assert (noise > 0).all()
    assert np.isfinite(noise).all()
    counts = np.histogram(-np.expm1(-noise), bins=64, range=(0, 1))[0]
    assert chi_square(counts, np.full(64, 200_000 / 64)) < CHI_SQUARE_99_9[63]


def test_positions_seeds_and_tokens_are_independent_axes() -> None:
    """Along each axis alone the numbers are uniform; neighbours on an axis do not follow one another."""
    rows = {
        "positions": [noise_of(7, position, [11]).item() for position in range(20_000)],
        "seeds": [noise_of(seed, 7, [11]).item() for seed in range(20_000)],
        "large seeds": [noise_of(seed << 44, 7, [11]).item() for seed in range(20_000)],
        "tokens": noise_of(7, 11, list(range(20_000))).tolist(),
    }
    for axis, noise in rows.items():
        uniform = -np.expm1(-np.array(noise))
        counts = np.histogram(uniform, bins=32, range=(0, 1))[0]
        assert chi_square(counts, np.full(32, 20_000 / 32)) < CHI_SQUARE_99_9[31], axis
        pairs = np.histogram2d(uniform[:-1], uniform[1:], bins=4, range=((0, 1), (0, 1)))[0].ravel()
        assert chi_square(pairs, np.full(16, 19_999 / 16)) < CHI_SQUARE_99_9[15], axis


def test_equal_draws_of_two_seeds_do_not_line_up() -> None:
    """The same tokens under two keys are uncorrelated."""
    first, second = noise_of(1, 5, list(range(50_000))), noise_of(2, 5, list(range(50_000)))
    assert abs(np.corrcoef(first.log().numpy(), second.log().numpy())[0, 1]) < 0.015


def test_a_seed_beyond_64_bits_is_taken_modulo() -> None:
    """No seed is an error here; the border decides which are allowed."""
    assert draw_key(2**64 + 5, 3) == draw_key(5, 3)
    assert draw_key(-1, 3) == draw_key(2**64 - 1, 3)
