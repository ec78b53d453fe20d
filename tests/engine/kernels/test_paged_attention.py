"""The CPU kernel equals the reference, and the reference equals attention as it is written in books."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.kernels import paged_attention_cpu as kernel
from engine.kernels.paged_attention import paged_attention_reference
from engine.kernels.paged_attention_cpu import paged_attention_cpu, plan_attention_cpu

TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@dataclass(frozen=True, slots=True)
class Case:
    """A step's queries over a cache whose foreign slots hold NaN."""

    query: Tensor
    key_cache: Tensor
    value_cache: Tensor
    query_lens: list[int]
    kv_lens: list[int]
    page_ids: list[list[int]]
    page_size: int

    def reference(self) -> Tensor:
        """Attend by the reference."""
        offsets = torch.tensor([0, *self.query_lens]).cumsum(0)
        table = torch.nn.utils.rnn.pad_sequence([torch.tensor(pages) for pages in self.page_ids], True, 2**40)
        scale = self.query.shape[-1] ** -0.5
        return paged_attention_reference(
            self.query, self.key_cache, self.value_cache, offsets, torch.tensor(self.kv_lens), table, scale
        )

    def by_kernel(self) -> Tensor:
        """Attend by the CPU kernel."""
        plan = plan_attention_cpu(self.query_lens, self.kv_lens, self.page_ids, self.page_size, self.query.dtype)
        return paged_attention_cpu(self.query, self.key_cache, self.value_cache, plan, self.query.shape[-1] ** -0.5)


def make_case(
    chunks: list[tuple[int, int]],
    *,
    page_size: int = 4,
    num_kv_heads: int = 2,
    group: int = 3,
    head_dim: int = 10,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    scattered: bool = True,
) -> Case:
    """Make chunks of (earlier tokens, tokens now); every slot that belongs to no sequence is NaN."""
    generator = torch.Generator().manual_seed(seed)
    chunks = sorted(chunks, key=lambda chunk: (chunk[1] > 1, chunk[0]))
    kv_lens = [earlier + now for earlier, now in chunks]
    counts = [-(-kv_len // page_size) for kv_len in kv_lens]
    num_pages = sum(counts) + 3
    order = torch.randperm(num_pages, generator=generator) if scattered else torch.arange(num_pages)
    page_ids = [part.tolist() for part in order[: sum(counts)].split(counts)]
    shape = (num_pages, page_size, num_kv_heads, head_dim)
    caches = []
    for _ in range(2):
        cache = torch.full(shape, float("nan"), dtype=dtype)
        for pages, kv_len in zip(page_ids, kv_lens, strict=True):
            slots = [pages[place // page_size] * page_size + place % page_size for place in range(kv_len)]
            cache.view(-1, *shape[2:])[slots] = torch.randn(kv_len, *shape[2:], generator=generator).to(dtype)
        caches.append(cache)
    num_tokens = sum(now for _, now in chunks)
    query = torch.randn(num_tokens, num_kv_heads * group, head_dim, generator=generator).to(dtype)
    return Case(query, *caches, [now for _, now in chunks], kv_lens, page_ids, page_size)


CASES = {
    "one token of one": [(0, 1)],
    "decode": [(6, 1), (0, 1), (22, 1), (3, 1), (7, 1)],
    "prompt": [(0, 13)],
    "chunk of a prompt": [(9, 6)],
    "everything": [(6, 1), (0, 17), (40, 1), (5, 2), (3, 1), (8, 8), (0, 4)],
}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_paged_attention_cpu_matches_reference(case: str, dtype: torch.dtype) -> None:
    """Every mix of chunks, over scattered pages in a cache full of NaN."""
    made = make_case(CASES[case], dtype=dtype)
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(made.by_kernel(), made.reference(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("num_kv_heads", "group", "head_dim"), [(1, 1, 2), (1, 7, 22), (3, 1, 64), (5, 2, 34)])
def test_every_head_layout_matches_reference(num_kv_heads: int, group: int, head_dim: int) -> None:
    """Multi-head, grouped and multi-query, odd counts."""
    made = make_case(CASES["everything"], num_kv_heads=num_kv_heads, group=group, head_dim=head_dim)
    torch.testing.assert_close(made.by_kernel(), made.reference(), atol=2e-6, rtol=2e-6)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), min_size=1, max_size=7),
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_any_step_matches_reference(chunks: list[tuple[int, int]], page_size: int, scattered: bool, seed: int) -> None:
    """Any chunks, any page size, pages together or apart; padding thresholds low, so that decode rows do split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "MIN_PADDING_TOKENS", 8)
        made = make_case(chunks, page_size=page_size, scattered=scattered, seed=seed, head_dim=6, group=2)
        torch.testing.assert_close(made.by_kernel(), made.reference(), atol=3e-6, rtol=3e-6)


def test_reference_is_softmax_attention_over_contiguous_memory() -> None:
    """With one sequence in one page the reference is the textbook formula."""
    torch.manual_seed(1)
    query, keys, values = torch.randn(5, 2, 6), torch.randn(5, 1, 6), torch.randn(5, 1, 6)
    got = paged_attention_reference(
        query,
        keys.unsqueeze(0),
        values.unsqueeze(0),
        torch.tensor([0, 5]),
        torch.tensor([5]),
        torch.tensor([[0]]),
        0.5,
    )
    for head in range(2):
        scores = (query[:, head] @ keys[:, 0].T * 0.5).masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf"))
        torch.testing.assert_close(got[:, head], scores.softmax(-1) @ values[:, 0])


def test_a_neighbour_full_of_nan_stays_alone() -> None:
    """One sequence whose keys are NaN answers NaN; the others answer what they answer without it."""
    chunks = [(6, 1), (9, 1), (11, 1), (2, 7), (0, 5)]
    clean = make_case(chunks)
    poisoned = make_case(chunks)
    victim = 1
    poisoned.key_cache[poisoned.page_ids[victim]] = float("nan")
    expected, got = clean.by_kernel(), poisoned.by_kernel()
    assert got[victim].isnan().all()
    others = [row for row in range(len(got)) if row != victim]
    assert torch.equal(got[others], expected[others])


def test_decode_groups_bound_the_padding() -> None:
    """A short sequence does not pay for a long one: beyond the threshold it gets a group of its own."""
    kv_lens = [17, 30, 33, 5000, 5100]
    pages = [list(range(-(-length // 16))) for length in kv_lens]
    plan = plan_attention_cpu([1] * 5, kv_lens, pages, 16, torch.float32)
    assert [(group.first_row, group.num_rows) for group in plan.groups] == [(0, 3), (3, 2)]
    assert not plan.spans
