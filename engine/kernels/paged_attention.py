"""Causal attention over paged keys and values: the reference, and the shapes that every kernel of it shares.

A step's rows lie chunk behind chunk.  Chunk c owns rows [query_offsets[c], query_offsets[c + 1]); its sequence has
kv_lens[c] tokens whose keys and values are in the cache, the chunk's own included, at the end:

    sequence   |-- earlier tokens, in pages --|-- this chunk --|
    position   0                kv_len - query_len          kv_len
"""

from __future__ import annotations

import torch
from torch import Tensor


def paged_attention_reference(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    query_offsets: Tensor,
    kv_lens: Tensor,
    page_table: Tensor,
    scale: float,
) -> Tensor:
    """Attend row by row, in fp32, reading exactly the slots that belong to the sequence.

    Args:
        query: `[num_tokens, num_heads, head_dim]`; head h reads KV head `h // (num_heads // num_kv_heads)`.
        key_cache: `[num_pages, page_size, num_kv_heads, head_dim]`.
        value_cache: likewise.
        query_offsets: `[num_chunks + 1] int64`.
        kv_lens: `[num_chunks] int64`.
        page_table: `[num_chunks, max_pages] int64`; entries behind a sequence's last page are never read.
        scale: factor of the scores.

    Returns:
        `[num_tokens, num_heads, head_dim]` of query's dtype.
    """
    page_size, num_kv_heads = key_cache.shape[1:3]
    group = query.shape[1] // num_kv_heads
    output = torch.empty_like(query)
    for chunk, kv_len in enumerate(kv_lens.tolist()):
        first, last = query_offsets[chunk : chunk + 2].tolist()
        pages = page_table[chunk, : -(-kv_len // page_size)]
        keys = key_cache[pages].flatten(0, 1)[:kv_len].float().repeat_interleave(group, dim=1)
        values = value_cache[pages].flatten(0, 1)[:kv_len].float().repeat_interleave(group, dim=1)
        for row in range(first, last):
            visible = kv_len - (last - first) + (row - first) + 1
            scores = torch.einsum("hd,thd->ht", query[row].float(), keys[:visible]) * scale
            attended = torch.einsum("ht,thd->hd", scores.softmax(dim=-1), values[:visible])
            output[row] = attended.to(query.dtype)
    return output
