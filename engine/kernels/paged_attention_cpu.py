"""Paged attention for the CPU: few large calls of torch's fused attention instead of many small ones.

Chunks of one token (decode) come first in a step, by growing length.  Neighbours of similar length form a group,
which is gathered page by page into one padded tensor; a longer chunk (prefill) is attended alone.  The plan is made
once per step and used by every layer.

Invariant: a row reads its own sequence's slots or zeros, nothing else.  A masked score of NaN is NaN, so the slots
behind a sequence's end, which may hold what a failed neighbour left there, are zeroed after the gather.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

MIN_PADDING_TOKENS = 1024
"""A second group costs about as much as attending to so many padded slots."""
MAX_PADDING_SHARE = 0.25
"""Of the slots a group gathers, at most about this share may be padding."""


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Chunks of one token, attended by one call."""

    first_row: int
    num_rows: int
    page_ids: Tensor
    """`[num_rows * num_pages] int64`; a row's missing pages are any valid page."""
    stale_slots: Tensor
    """`[num_stale] int64` gathered slots, `row * num_pages * page_size + position`, that no row may read."""
    mask: Tensor
    """`[num_rows, 1, 1, num_pages * page_size]`: 0 where a row may look, else -inf."""


@dataclass(frozen=True, slots=True)
class PrefillSpan:
    """One chunk of several tokens."""

    first_row: int
    num_rows: int
    kv_len: int
    first_page: int
    """When the pages follow one another: the first of them, and the cache is read in place.  Else -1."""
    page_ids: Tensor
    """`[num_pages] int64`."""
    mask: Tensor | None
    """`[num_rows, kv_len]`, or None when the chunk starts its sequence."""


@dataclass(frozen=True, slots=True)
class CpuAttentionPlan:
    """How one step's rows are attended; `[0, num_decode_rows)` are covered by the groups, the rest by the spans."""

    groups: tuple[DecodeGroup, ...]
    spans: tuple[PrefillSpan, ...]


def plan_attention_cpu(
    query_lens: Sequence[int],
    kv_lens: Sequence[int],
    page_ids: Sequence[Sequence[int]],
    page_size: int,
    dtype: torch.dtype,
) -> CpuAttentionPlan:
    """Group the chunks of a step.

    Args:
        query_lens: tokens of each chunk; chunks of one token come first, by growing number of pages.
        kv_lens: tokens of each sequence, the chunk's included.
        page_ids: the pages of each sequence.
        page_size: tokens per page.
        dtype: the queries' dtype, for the masks.
    """
    num_decodes = next((index for index, length in enumerate(query_lens) if length > 1), len(query_lens))
    groups: list[DecodeGroup] = []
    first = 0
    while first < num_decodes:
        last = _group_end(kv_lens, first, num_decodes)
        groups.append(_decode_group(first, kv_lens[first:last], page_ids[first:last], page_size, dtype))
        first = last
    spans: list[PrefillSpan] = []
    first_row = num_decodes
    for chunk in range(num_decodes, len(query_lens)):
        spans.append(_prefill_span(first_row, query_lens[chunk], kv_lens[chunk], page_ids[chunk], dtype))
        first_row += query_lens[chunk]
    return CpuAttentionPlan(tuple(groups), tuple(spans))


def paged_attention_cpu(
    query: Tensor, key_cache: Tensor, value_cache: Tensor, plan: CpuAttentionPlan, scale: float
) -> Tensor:
    """Attend a step's rows; shapes, dtypes and result as in `paged_attention_reference`."""
    output = torch.empty_like(query)
    for group in plan.groups:
        _attend_group(query, key_cache, value_cache, group, scale, output)
    for span in plan.spans:
        _attend_span(query, key_cache, value_cache, span, scale, output)
    return output


def _group_end(kv_lens: Sequence[int], first: int, end: int) -> int:
    """Take neighbours while the padding up to the longest of them stays small."""
    useful = 0
    last = first
    while last < end:
        useful += kv_lens[last]
        gathered = kv_lens[last] * (last - first + 1)
        if gathered - useful > max(MIN_PADDING_TOKENS, MAX_PADDING_SHARE * gathered):
            break
        last += 1
    return last


def _decode_group(
    first: int, kv_lens: Sequence[int], page_ids: Sequence[Sequence[int]], page_size: int, dtype: torch.dtype
) -> DecodeGroup:
    num_pages = max(len(pages) for pages in page_ids)
    gathered: list[int] = []
    for pages in page_ids:
        gathered.extend(pages)
        gathered.extend([pages[-1]] * (num_pages - len(pages)))
    positions = torch.arange(num_pages * page_size)
    stale = positions >= torch.tensor(kv_lens).unsqueeze(1)
    mask = torch.zeros(stale.shape, dtype=dtype).masked_fill_(stale, float("-inf"))
    return DecodeGroup(
        first_row=first,
        num_rows=len(kv_lens),
        page_ids=torch.tensor(gathered),
        stale_slots=stale.flatten().nonzero().squeeze(1),
        mask=mask.view(len(kv_lens), 1, 1, -1),
    )


def _prefill_span(
    first_row: int, query_len: int, kv_len: int, page_ids: Sequence[int], dtype: torch.dtype
) -> PrefillSpan:
    consecutive = all(right - left == 1 for left, right in pairwise(page_ids))
    mask = None
    if kv_len > query_len:
        mask = torch.full((query_len, kv_len), float("-inf"), dtype=dtype).triu_(kv_len - query_len + 1)
    return PrefillSpan(
        first_row=first_row,
        num_rows=query_len,
        kv_len=kv_len,
        first_page=page_ids[0] if consecutive else -1,
        page_ids=torch.tensor(page_ids),
        mask=mask,
    )


def _attend_group(
    query: Tensor, key_cache: Tensor, value_cache: Tensor, group: DecodeGroup, scale: float, output: Tensor
) -> None:
    num_kv_heads, head_dim = key_cache.shape[2:]
    rows = slice(group.first_row, group.first_row + group.num_rows)
    # The query heads of a KV head stand as that head's query rows: keys are read once for all of them.
    attended = scaled_dot_product_attention(
        query[rows].view(group.num_rows, num_kv_heads, -1, head_dim),
        _gather(key_cache, group),
        _gather(value_cache, group),
        attn_mask=group.mask,
        scale=scale,
    )
    output[rows].view(attended.shape).copy_(attended)


def _gather(cache: Tensor, group: DecodeGroup) -> Tensor:
    """Copy a group's pages together: `[num_rows, num_kv_heads, num_pages * page_size, head_dim]`."""
    num_kv_heads, head_dim = cache.shape[2:]
    slots = cache.index_select(0, group.page_ids).view(-1, num_kv_heads * head_dim)
    slots.index_fill_(0, group.stale_slots, 0.0)
    return slots.view(group.num_rows, -1, num_kv_heads, head_dim).transpose(1, 2)


def _attend_span(
    query: Tensor, key_cache: Tensor, value_cache: Tensor, span: PrefillSpan, scale: float, output: Tensor
) -> None:
    rows = slice(span.first_row, span.first_row + span.num_rows)
    attended = scaled_dot_product_attention(
        query[rows].transpose(0, 1).unsqueeze(0),
        _sequence_slots(key_cache, span),
        _sequence_slots(value_cache, span),
        attn_mask=span.mask,
        is_causal=span.mask is None,
        scale=scale,
        enable_gqa=True,
    )
    output[rows].copy_(attended.squeeze(0).transpose(0, 1))


def _sequence_slots(cache: Tensor, span: PrefillSpan) -> Tensor:
    """Give a sequence's rows, in place where they lie together: `[1, num_kv_heads, kv_len, head_dim]`."""
    if span.first_page >= 0:
        pages = cache[span.first_page : span.first_page + len(span.page_ids)]
    else:
        pages = cache.index_select(0, span.page_ids)
    return pages.flatten(0, 1)[: span.kv_len].transpose(0, 1).unsqueeze(0)
