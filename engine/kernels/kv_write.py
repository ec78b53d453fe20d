"""Storing new keys and values into their pages."""

from __future__ import annotations

from torch import Tensor


def kv_write_reference(rows: Tensor, cache: Tensor, slot_mapping: Tensor) -> None:
    """Write one row per token into the slots that the step's plan owns.

    Args:
        rows: `[num_tokens, num_kv_heads, head_dim]` keys or values.
        cache: `[num_pages, page_size, num_kv_heads, head_dim]` contiguous; changed in place.
        slot_mapping: `[num_tokens] int64`, `page_id * page_size + offset`, no slot twice.
    """
    cache.view(-1, *cache.shape[2:]).index_copy_(0, slot_mapping, rows)
