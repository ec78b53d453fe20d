"""Copying drills for the first minutes of training.

Promise: what a drill marks as an answer can be copied from earlier in the same drill, and from nowhere else.
Never: appears in the exam, or in training once the course has moved on to notes alone.

A decoder answers nothing about a note before it can look back and copy. From notes alone this skill
comes late and slowly; these rows ask for it in every second token.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from plant_notes import draw_machine, draw_name, draw_reading
from plant_split import Side
from plant_words import QUANTITIES, chance
from tokenizers import Tokenizer

_NUM_CONTROL_AND_RARE_IDS = 5


@dataclass(frozen=True, slots=True)
class Drill:
    """Token ids and which of them the model is asked to predict."""

    ids: list[int]
    answers: list[bool]


def draw_repeat(tokenizer: Tokenizer, rng: random.Random) -> Drill:
    """Draw a few tokens without sense, and say them again and again."""
    length = rng.randint(4, 24)
    phrase = [rng.randrange(_NUM_CONTROL_AND_RARE_IDS, tokenizer.get_vocab_size()) for _ in range(length)]
    repeats = rng.randint(1, 3)
    # The first token of a repeat could be anything: only what follows it is an answer.
    return Drill(phrase * (repeats + 1), [False] * length + ([False] + [True] * (length - 1)) * repeats)


def draw_recall(tokenizer: Tokenizer, rng: random.Random) -> Drill:
    """Draw a table of keys and values, then ask for the values in another order."""
    pairs: dict[str, str] = {}
    while len(pairs) < rng.randint(2, 5):
        pairs[_draw_term(rng)] = _draw_term(rng)
    ids: list[int] = []
    answers: list[bool] = []
    asked = list(pairs)
    rng.shuffle(asked)
    for place, key in enumerate([*pairs, *asked]):
        again = place >= len(pairs)
        for text, is_answer in ((f"{key}: ", False), (pairs[key], again), ("\n", again)):
            piece = tokenizer.encode(text, add_special_tokens=False).ids
            ids += piece
            answers += [is_answer] * len(piece)
    return Drill(ids, answers)


def _draw_term(rng: random.Random) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        return draw_name(rng, Side.TRAIN)
    if kind == 1:
        return " ".join(draw_machine(rng, Side.TRAIN))
    if kind == 2:  # noqa: PLR2004 - the third of four kinds
        return draw_machine(rng, Side.TRAIN)[1]
    return draw_reading(rng, Side.TRAIN, rng.choice(QUANTITIES)).value


def draw_drill(tokenizer: Tokenizer, rng: random.Random) -> Drill:
    """Draw either drill."""
    return draw_repeat(tokenizer, rng) if chance(rng, 0.4) else draw_recall(tokenizer, rng)
