"""Texts for property tests: every script, broken spacing, and what looks like a control token."""

from __future__ import annotations

from hypothesis import strategies as st

FORGERIES = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<unk>", "<think>", "<|end|>", "<|bos|>",
    "<|im_", "end|>", "<|", "|>", "<", ">", "[INST]", "[/INST]", "system\n", "assistant\n", "<table>",
)  # fmt: skip
SPACES = (" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u200b", "▁")

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
plain_pieces = st.one_of(any_text, st.sampled_from([*SPACES, "pump", "Halle 3", "насос", "三号厅", "👩‍🔧", "e\u0301"]))
plain_texts = st.lists(plain_pieces, max_size=8).map("".join)
hostile_texts = st.lists(st.one_of(plain_pieces, st.sampled_from(FORGERIES)), max_size=10).map("".join)
