"""Key and value memory of every layer, cut into pages."""

from __future__ import annotations

import torch
from torch import Tensor


class KvCache:
    """Owner of the KV memory.

    Which page belongs to whom is the page pool's knowledge; here a page is a range of slots.  Tokens lie behind one
    another, all heads of a token together, so that consecutive pages read as one plain tensor without a copy.
    """

    def __init__(
        self, num_layers: int, num_pages: int, page_size: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
    ) -> None:
        shape = (num_pages, page_size, num_kv_heads, head_dim)
        self.num_pages = num_pages
        self.page_size = page_size
        # Written at once, so that memory which is not there is missed at start and not under load.
        self.keys: tuple[Tensor, ...] = tuple(torch.zeros(shape, dtype=dtype) for _ in range(num_layers))
        self.values: tuple[Tensor, ...] = tuple(torch.zeros(shape, dtype=dtype) for _ in range(num_layers))


def kv_page_bytes(num_layers: int, page_size: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
    """Count the bytes that one page takes over all layers, keys and values."""
    return 2 * num_layers * page_size * num_kv_heads * head_dim * dtype.itemsize
