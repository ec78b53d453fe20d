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

from plant_conversations import Message, draw_conversation, open_conversation
from plant_extraction import ask_extraction
from plant_notes import NoteShape, draw_note
from plant_split import Side

EXAM_SEED = 20_260_101
NUM_QUESTIONS = 500
NUM_EXTRACTIONS = 200
NUM_LOG_EXTRACTIONS = 100
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
    """Draw extractions from incident notes: the first turn of a conversation."""
    return _extractions("extraction", NoteShape(Side.EVAL, 1, 1), count, seed)


def log_extraction_cases(count: int = NUM_LOG_EXTRACTIONS, seed: int = EXAM_SEED) -> list[Case]:
    """Draw extractions of one entry, or the header, of a log: reported in the card, held to no bar."""
    return _extractions("log_extraction", NoteShape(Side.EVAL, 2, _SHAPE.max_entries), count, seed)


def _extractions(kind: str, shape: NoteShape, count: int, seed: int) -> list[Case]:
    cases = []
    for index in range(count):
        rng = random.Random(f"exam:{seed}:{kind}:{index}")
        note = draw_note(rng, shape)
        turn = ask_extraction(rng, note)
        cases.append(Case(kind, tuple(open_conversation(rng, note, turn.question)), turn.answer))
    return cases


def is_right(case: Case, said: str) -> bool:
    """Mark one answer."""
    return _same_object(case.answer, said) if case.kind.endswith("extraction") else said == case.answer


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
