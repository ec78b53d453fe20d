"""A plan becomes rows: every token at its place, every slot in its sequence's pages, logits in the plan's order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batch import Batch, ScheduledChunk
from engine.inputs import build_inputs


@st.composite
def batches(draw: st.DrawFn) -> tuple[Batch, int]:
    """Draw a batch whose sequences own disjoint pages, in any order of chunks."""
    page_size = draw(st.integers(1, 7))
    chunks, next_page = [], 0
    for index in range(draw(st.integers(1, 6))):
        start, length = draw(st.integers(0, 30)), draw(st.one_of(st.just(1), st.integers(1, 12)))
        num_pages = -(-(start + length) // page_size) + draw(st.integers(0, 2))
        page_ids = tuple(draw(st.permutations(range(next_page, next_page + num_pages))))
        next_page += num_pages
        token_ids = tuple(range(1000 * index, 1000 * index + length))
        chunks.append(ScheduledChunk(f"r{index}", token_ids, start, page_ids, draw(st.booleans())))
    return Batch(tuple(chunks)), page_size


@given(batches())
@settings(max_examples=100, deadline=None)
def test_every_token_is_one_row_with_its_position_and_slot(drawn: tuple[Batch, int]) -> None:
    """Token ids name their chunk and offset here, so each row can be traced back."""
    batch, page_size = drawn
    inputs = build_inputs(batch, page_size, torch.float32)
    rows = {
        token_id: (position, slot)
        for token_id, position, slot in zip(
            inputs.token_ids.tolist(), inputs.positions.tolist(), inputs.slot_mapping.tolist(), strict=True
        )
    }
    expected = {}
    for chunk in batch.chunks:
        for offset, token_id in enumerate(chunk.token_ids):
            position = chunk.start + offset
            slot = chunk.page_ids[position // page_size] * page_size + position % page_size
            expected[token_id] = (position, slot)
    assert rows == expected
    assert len(inputs.token_ids) == batch.num_tokens


@given(batches())
@settings(max_examples=100, deadline=None)
def test_logits_rows_follow_the_plans_order(drawn: tuple[Batch, int]) -> None:
    """However rows are arranged for the kernel, the n-th sampling chunk's last token is the n-th row of logits."""
    batch, page_size = drawn
    inputs = build_inputs(batch, page_size, torch.float32)
    last_tokens = [chunk.token_ids[-1] for chunk in batch.chunks if chunk.samples]
    assert inputs.token_ids[inputs.logits_rows].tolist() == last_tokens


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (ScheduledChunk("r", (1, 2, 3), 6, (0, 1), True), "9 tokens need 3 pages, the plan gives 2"),
        (ScheduledChunk("r", (), 0, (0,), True), "empty"),
    ],
)
def test_a_plan_that_breaks_its_promise_is_stopped(chunk: ScheduledChunk, message: str) -> None:
    """A page that was not planned is never read or written."""
    with pytest.raises(AssertionError, match=message):
        build_inputs(Batch((chunk,)), 4, torch.float32)
