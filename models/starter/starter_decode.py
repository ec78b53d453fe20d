"""Greedy decoding of many conversations at once, with a key-value cache, for the evaluation.

Promise: each answer is what greedy decoding of that conversation alone gives (up to rounding).
Never: samples, streams or serves.
"""

from __future__ import annotations

from pathlib import Path

import torch
from plant_conversations import Message
from starter_llama import KeyValues, Llama, load_llama
from starter_tokenizer import END, chat_ids, control_id
from tokenizers import Tokenizer
from torch import Tensor


def load_folder(folder: Path) -> tuple[Llama, Tokenizer]:
    """Read the model and the tokenizer of a served folder."""
    return load_llama(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))


def answer_all(
    model: Llama, tokenizer: Tokenizer, prompts: list[list[Message]], batch_size: int = 32, max_new_tokens: int = 160
) -> list[str]:
    """Return the greedy answer to each prompt, in order."""
    encoded = [chat_ids(tokenizer, messages) for messages in prompts]
    by_len = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    answers = [""] * len(encoded)
    for start in range(0, len(by_len), batch_size):
        chosen = by_len[start : start + batch_size]
        spoken = _decode(model, [encoded[index] for index in chosen], control_id(tokenizer, END), max_new_tokens)
        for index, ids in zip(chosen, spoken, strict=True):
            answers[index] = tokenizer.decode(ids, skip_special_tokens=False)
    return answers


@torch.inference_mode()
def _decode(model: Llama, prompts: list[list[int]], end_id: int, max_new_tokens: int) -> list[list[int]]:
    """Decode a batch whose rows are padded on the left, so that all rows end at the same column."""
    width = max(len(prompt) for prompt in prompts)
    pads = torch.tensor([width - len(prompt) for prompt in prompts])
    ids = torch.tensor([[end_id] * (width - len(prompt)) + prompt for prompt in prompts])
    columns = torch.arange(width)
    positions = (columns[None] - pads[:, None]).clamp(min=0)
    causal = columns[None, :] <= columns[:, None]
    # A padding query sees itself only: an all-masked row would be NaN.
    mask = (causal[None] & (columns[None, None] >= pads[:, None, None])) | torch.eye(width, dtype=torch.bool)[None]
    hidden, past = model.hidden(ids, positions, None, mask[:, None])
    spoken: list[list[int]] = [[] for _ in prompts]
    done = [False] * len(prompts)
    for step in range(max_new_tokens):
        following = model.logits(hidden[:, -1]).argmax(-1)
        for row, token in enumerate(following.tolist()):
            done[row] = done[row] or token == end_id
            if not done[row]:
                spoken[row].append(token)
        if all(done):
            break
        hidden, past = _next_hidden(model, following, pads, width + step, past)
    return spoken


def _next_hidden(
    model: Llama, ids: Tensor, pads: Tensor, column: int, past: list[KeyValues]
) -> tuple[Tensor, list[KeyValues]]:
    visible = torch.arange(column + 1)[None] >= pads[:, None]
    return model.hidden(ids[:, None], (column - pads)[:, None], past, visible[:, None, None])
