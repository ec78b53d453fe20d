"""Whole conversations: a note, questions, follow-ups, answers.

Promise: `draw_conversation` is a pure function of its generator and its side; the note comes first
(in the system message, or in the first user message), every assistant message is the right answer.
Never: tokens, weights, files.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from plant_extraction import ask_extraction
from plant_notes import Note, NoteShape, draw_note
from plant_questions import (
    Turn,
    ask_absent,
    ask_attribute,
    ask_count,
    ask_follow_up,
    ask_header,
    ask_list,
    ask_order,
    ask_reverse,
    ask_status_yes_no,
    ask_summary,
)
from plant_talk import no_note, off_topic, small_talk
from plant_words import FAULT_NOUNS, chance, syllable_name

Message = dict[str, str]

_SYSTEM_PROMPTS: tuple[str, ...] = (
    "You answer questions about plant notes.",
    "You are a helpful assistant.",
    "Answer from the note only.",
    "You are the plant assistant. Answer briefly.",
)

_ASKERS: tuple[tuple[float, Callable[[random.Random, Note], Turn]], ...] = (
    (0.42, ask_attribute),
    (0.08, ask_status_yes_no),
    (0.16, ask_reverse),
    (0.08, ask_header),
    (0.07, ask_order),
    (0.04, ask_count),
    (0.05, ask_list),
    (0.10, ask_summary),
)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order, and beside them the turns that made the user and assistant messages."""

    messages: tuple[Message, ...]
    turns: tuple[Turn, ...]


def draw_turn(rng: random.Random, note: Note, last: Turn | None, shape: NoteShape) -> Turn:
    """Draw the next turn of a conversation about the note; extractions are drawn by their caller."""
    if last is not None and last.entry is not None and chance(rng, 0.4):
        return ask_follow_up(rng, note, last)
    if chance(rng, 0.09):
        return ask_absent(rng, note, shape.side)
    asker = rng.choices([asker for _, asker in _ASKERS], [weight for weight, _ in _ASKERS])[0]
    return asker(rng, note)


def open_conversation(rng: random.Random, note: Note, question: str) -> list[Message]:
    """Place the note and the first question in one of the ways a person would."""
    place = rng.choices(("system", "question first", "note first", "prompted"), (15, 10, 60, 15))[0]
    if place == "system":
        return [{"role": "system", "content": note.text}, {"role": "user", "content": question}]
    gap = rng.choice(("\n\n", "\n"))
    content = f"{question}{gap}{note.text}" if place == "question first" else f"{note.text}{gap}{question}"
    messages: list[Message] = [{"role": "user", "content": content}]
    if place == "prompted":
        messages.insert(0, {"role": "system", "content": rng.choice(_SYSTEM_PROMPTS)})
    return messages


def draw_conversation(
    rng: random.Random,
    shape: NoteShape,
    num_turns: int,
    extraction_rate: float = 0.1,
    talk_rate: float = 0.0,
    log_extraction_share: float = 1.0,
) -> Conversation:
    """Draw a note and that many turns about it, with small talk in between at its rate.

    Out of a log an entry is extracted at `log_extraction_share` of the rate of an incident note.
    """
    note = draw_note(rng, shape)
    if len(note.entries) > 1:
        extraction_rate *= log_extraction_share
    messages: list[Message] = []
    turns: list[Turn] = []
    for _ in range(num_turns):
        if rng.random() < extraction_rate:
            turn = ask_extraction(rng, note)
        elif turns and chance(rng, talk_rate):
            turn = small_talk(rng) if chance(rng, 0.5) else off_topic(rng, _word(rng))
        else:
            turn = draw_turn(rng, note, turns[-1] if turns else None, shape)
        if messages:
            messages.append({"role": "user", "content": turn.question})
        else:
            messages = open_conversation(rng, note, turn.question)
        messages.append({"role": "assistant", "content": turn.answer})
        turns.append(turn)
    return Conversation(tuple(messages), tuple(turns))


def _word(rng: random.Random) -> str:
    return rng.choice((rng.choice(FAULT_NOUNS), syllable_name(rng)))


def draw_talk(rng: random.Random) -> Conversation:
    """Draw one to three turns without a note."""
    messages: list[Message] = []
    turns: list[Turn] = []
    if chance(rng, 0.3):
        messages.append({"role": "system", "content": rng.choice(_SYSTEM_PROMPTS)})
    for _ in range(rng.choice((1, 1, 2, 3))):
        kind = rng.choices(("talk", "no note", "off topic"), (60, 15, 25))[0]
        if kind == "talk":
            turn = small_talk(rng)
        elif kind == "no note":
            turn = no_note(rng)
        else:
            turn = off_topic(rng, _word(rng))
        messages.append({"role": "user", "content": turn.question})
        messages.append({"role": "assistant", "content": turn.answer})
        turns.append(turn)
    return Conversation(tuple(messages), tuple(turns))
