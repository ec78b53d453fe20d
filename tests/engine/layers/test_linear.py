"""The packed product equals the plain one."""

from __future__ import annotations

import pytest
import torch

from engine.layers.linear import Linear


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)], ids=str
)
@pytest.mark.parametrize("num_tokens", [1, 2, 17, 64])
@pytest.mark.parametrize(("in_size", "out_size"), [(1, 1), (37, 53), (96, 200)])
def test_linear_matches_torch(
    in_size: int, out_size: int, num_tokens: int, dtype: torch.dtype, tolerance: float
) -> None:
    """Odd sizes and every dtype, against the product in fp64."""
    torch.manual_seed(in_size + num_tokens)
    weight = (torch.randn(out_size, in_size) / in_size**0.5).to(dtype)
    x = torch.randn(num_tokens, in_size).to(dtype)
    expected = (x.double() @ weight.double().T).to(dtype)
    torch.testing.assert_close(Linear(weight.clone())(x), expected, atol=tolerance, rtol=tolerance)


def test_rows_of_a_product_do_not_see_one_another() -> None:
    """A row of NaN makes no other row NaN, and changes none of them."""
    torch.manual_seed(0)
    linear = Linear(torch.randn(53, 37))
    x = torch.randn(9, 37)
    clean = linear(x)
    x[4] = float("nan")
    got = linear(x)
    assert got[4].isnan().all()
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(got[others], clean[others])
