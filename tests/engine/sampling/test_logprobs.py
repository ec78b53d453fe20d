"""Reported log-probabilities are of the raw logits, with ranks and the most likely tokens."""

from __future__ import annotations

import pytest
import torch

from engine.sampling.logprobs import token_logprobs


@pytest.mark.parametrize("num_top", [0, 1, 5, 37, 100])
def test_logprobs_match_a_sorted_log_softmax(num_top: int) -> None:
    """Values in fp64, ranks by counting, tops by sorting."""
    logits = torch.randn(37, generator=torch.Generator().manual_seed(3)) * 4
    expected = torch.log_softmax(logits.double(), dim=-1).tolist()
    order = sorted(range(37), key=lambda token_id: -expected[token_id])
    for token_id in (order[0], order[10], order[36]):
        got = token_logprobs(logits, token_id, num_top)
        assert got.token_id == token_id
        assert got.logprob == pytest.approx(expected[token_id], abs=1e-5)
        assert got.rank == order.index(token_id) + 1
        assert [top_id for top_id, _ in got.top] == order[:num_top]
        assert [value for _, value in got.top] == pytest.approx(
            [expected[top_id] for top_id in order[:num_top]], abs=1e-5
        )


def test_equal_tokens_share_a_rank_and_stand_in_order_of_their_ids() -> None:
    """Ties are reported the same way every time."""
    logits = torch.tensor([1.0, 3.0, 2.0, 3.0, 2.0, 2.0])
    assert token_logprobs(logits, 3, 0).rank == token_logprobs(logits, 1, 0).rank == 1
    assert token_logprobs(logits, 5, 0).rank == 3
    assert [token_id for token_id, _ in token_logprobs(logits, 0, 4).top] == [1, 3, 2, 4]
