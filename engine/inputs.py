"""A step's plan as tensors: `Batch` in, frozen `ModelInputs` out; knows no weights and changes nothing.

Rows are ordered for the attention kernel, not as the plan orders its chunks: single tokens first, by growing length,
then longer chunks.  `logits_rows` leads back to the plan's order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.batch import Batch, ScheduledChunk
from engine.kernels.paged_attention_cpu import CpuAttentionPlan, plan_attention_cpu


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """What one forward pass reads beside weights and KV memory."""

    token_ids: Tensor
    """`[num_tokens] int64`."""
    positions: Tensor
    """`[num_tokens] int64`: place of each token in its sequence."""
    slot_mapping: Tensor
    """`[num_tokens] int64`: where each token's key and value are stored, `page_id * page_size + offset`."""
    logits_rows: Tensor
    """`[num_sampling_chunks] int64`: the row of each sampling chunk's last token, in the plan's order of chunks."""
    attention: CpuAttentionPlan


def build_inputs(batch: Batch, page_size: int, dtype: torch.dtype) -> ModelInputs:
    """Lay the chunks of a step out as rows.

    Args:
        batch: at least one chunk, each of at least one token, its pages covering it.
        page_size: tokens per page.
        dtype: the model's dtype.
    """
    order = sorted(range(len(batch.chunks)), key=lambda index: _row_order(batch.chunks[index]))
    chunks = [batch.chunks[index] for index in order]
    query_lens = [len(chunk.token_ids) for chunk in chunks]
    kv_lens = [chunk.start + len(chunk.token_ids) for chunk in chunks]
    pages = [_pages_in_use(chunk, kv_len, page_size) for chunk, kv_len in zip(chunks, kv_lens, strict=True)]

    positions = np.concatenate([np.arange(chunk.start, end) for chunk, end in zip(chunks, kv_lens, strict=True)])
    slots = np.concatenate(
        [
            _slots(chunk_pages, chunk.start, end, page_size)
            for chunk_pages, chunk, end in zip(pages, chunks, kv_lens, strict=True)
        ]
    )
    last_row = dict(zip(order, (np.cumsum(query_lens) - 1).tolist(), strict=True))
    return ModelInputs(
        token_ids=torch.tensor([token_id for chunk in chunks for token_id in chunk.token_ids]),
        positions=torch.from_numpy(positions),
        slot_mapping=torch.from_numpy(slots),
        logits_rows=torch.tensor(
            [last_row[index] for index, chunk in enumerate(batch.chunks) if chunk.samples], dtype=torch.int64
        ),
        attention=plan_attention_cpu(query_lens, kv_lens, pages, page_size, dtype),
    )


def _row_order(chunk: ScheduledChunk) -> tuple[bool, int]:
    return len(chunk.token_ids) > 1, chunk.start


def _pages_in_use(chunk: ScheduledChunk, kv_len: int, page_size: int) -> tuple[int, ...]:
    needed = -(-kv_len // page_size)
    assert len(chunk.token_ids) > 0, f"chunk of {chunk.request_id} is empty"
    assert needed <= len(chunk.page_ids), f"{kv_len} tokens need {needed} pages, the plan gives {len(chunk.page_ids)}"
    return chunk.page_ids[:needed]


def _slots(
    page_ids: tuple[int, ...], start: int, end: int, page_size: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    if end - start == 1:
        return np.array([page_ids[start // page_size] * page_size + start % page_size])
    first_page = start // page_size
    positions = np.arange(start, end)
    table = np.asarray(page_ids[first_page:], dtype=np.int64)
    return table[positions // page_size - first_page] * page_size + positions % page_size
