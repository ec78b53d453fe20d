"""Fixed-length rows of token ids for the trainer, with the answers marked.

Promise: row `index` of a seed is the same whatever was drawn before it; a row is a conversation cut at
the row's length (now and then with one or two short ones before it), so nothing is padded.
Never: draws from the evaluation side.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from plant_conversations import Conversation, draw_conversation, draw_talk
from plant_notes import NoteShape
from plant_split import Side
from plant_words import chance
from starter_drills import draw_drill
from starter_tokenizer import BOS, CONTROL_TOKENS, END, control_id
from tokenizers import Tokenizer
from torch import Tensor

_TALK_RATE = 0.03


@dataclass(frozen=True, slots=True)
class Stage:
    """One leg of the training course: rows of this length until `steps` steps are done."""

    steps: int
    row_len: int
    rows_per_step: int
    min_entries: int
    max_entries: int
    extraction_rate: float
    drill_rate: float = 0.0
    log_extraction_share: float = 1.0


@dataclass(frozen=True, slots=True)
class Rows:
    """Token ids [rows, row_len + 1] int64, and where an answer token stands, bool of the same shape."""

    ids: Tensor
    answers: Tensor


def encode_conversation(tokenizer: Tokenizer, conversation: Conversation) -> tuple[list[int], list[bool]]:
    """Return the ids of a conversation and whether each is the assistant's to say (END included)."""
    control = {token: control_id(tokenizer, token) for token in CONTROL_TOKENS}
    contents = [message["content"] for message in conversation.messages]
    ids, answers = [control[BOS]], [False]
    encodings = tokenizer.encode_batch(contents, add_special_tokens=False)
    for message, encoding in zip(conversation.messages, encodings, strict=True):
        spoken = message["role"] == "assistant"
        ids += [control[f"<|{message['role']}|>"], *encoding.ids, control[END]]
        answers += [False, *([spoken] * (len(encoding.ids) + 1))]
    return ids, answers


def draw_row(tokenizer: Tokenizer, stage: Stage, rng: random.Random) -> tuple[list[int], list[bool]]:
    """Draw one row."""
    length = stage.row_len + 1
    ids: list[int] = []
    answers: list[bool] = []
    if chance(rng, stage.drill_rate):
        ids, answers = [control_id(tokenizer, BOS)], [False]
        while len(ids) < length:
            drill = draw_drill(tokenizer, rng)
            ids += drill.ids
            answers += drill.answers
        return ids[:length], answers[:length]
    shape = NoteShape(Side.TRAIN, stage.min_entries, stage.max_entries)
    if chance(rng, 0.12):
        ids, answers = encode_conversation(tokenizer, draw_talk(rng))
    while len(ids) < length:
        room = length - len(ids)
        conversation = draw_conversation(
            rng, shape, max(2, room // 20), stage.extraction_rate, _TALK_RATE, stage.log_extraction_share
        )
        more_ids, more_answers = encode_conversation(tokenizer, conversation)
        ids += more_ids
        answers += more_answers
    return ids[:length], answers[:length]


def draw_rows(tokenizer: Tokenizer, stage: Stage, seed: int, step: int) -> Rows:
    """Draw the rows of one step."""
    drawn = [
        draw_row(tokenizer, stage, random.Random(f"train:{seed}:{step}:{row}")) for row in range(stage.rows_per_step)
    ]
    return Rows(torch.tensor([ids for ids, _ in drawn]), torch.tensor([answers for _, answers in drawn]))
