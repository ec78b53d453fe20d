"""The exam: held-out conversations and how their answers are marked.

Promise: every case is drawn on the evaluation side from the exam's own seed; a question is right only
if the answer is equal character for character, an extraction only if it is one JSON object with the
right keys in the right order and the right values of the right types.
Never: runs a model.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from plant_conversations import Message, draw_conversation
from plant_notes import NoteShape
from plant_split import Side

EXAM_SEED = 20_260_101
NUM_QUESTIONS = 500
NUM_EXTRACTIONS = 200
QUESTION_BAR = 0.90
EXTRACTION_BAR = 0.95
_SHAPE = NoteShape(Side.EVAL)


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt (all earlier turns answered rightly) and its only right answer."""

    kind: str
    messages: tuple[Message, ...]
    answer: str


def question_cases(count: int = NUM_QUESTIONS, seed: int = EXAM_SEED) -> list[Case]:
    """Draw questions: the last turn of conversations of one to five turns."""
    cases = []
    for index in range(count):
        rng = random.Random(f"exam:{seed}:question:{index}")
        conversation = draw_conversation(rng, _SHAPE, rng.randint(1, 5), extraction_rate=0.0)
        cases.append(Case(conversation.turns[-1].kind, conversation.messages[:-1], conversation.turns[-1].answer))
    return cases


def extraction_cases(count: int = NUM_EXTRACTIONS, seed: int = EXAM_SEED) -> list[Case]:
    """Draw extractions: the first turn of a conversation."""
    cases = []
    for index in range(count):
        rng = random.Random(f"exam:{seed}:extraction:{index}")
        conversation = draw_conversation(rng, _SHAPE, 1, extraction_rate=1.0)
        cases.append(Case("extraction", conversation.messages[:-1], conversation.turns[-1].answer))
    return cases


def is_right(case: Case, said: str) -> bool:
    """Mark one answer."""
    return _same_object(case.answer, said) if case.kind == "extraction" else said == case.answer


def _same_object(expected: str, said: str) -> bool:
    try:
        found = json.loads(said)
    except ValueError:
        return False
    wanted = json.loads(expected)
    if not isinstance(found, dict) or list(found) != list(wanted):
        return False
    # 4 and 4.0 are the same JSON number; true and 1 are not, nor is "4".
    return all(
        found[key] == value
        and isinstance(found[key], bool) == isinstance(value, bool)
        and isinstance(found[key], str) == isinstance(value, str)
        for key, value in wanted.items()
    )
