"""The generator: deterministic, and its answer key is right."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from plant_conversations import draw_conversation, draw_talk
from plant_extraction import ask_extraction
from plant_notes import NoteShape, draw_note
from plant_questions import (
    ATTRIBUTES,
    NOT_SAID,
    UNSAID,
    ask_absent,
    ask_attribute,
    ask_list,
    ask_reverse,
    ask_summary,
    fact_of,
)
from plant_split import Side

STARTER = Path(__file__).parents[3] / "models" / "starter"
SHAPE = NoteShape(Side.EVAL)
SEEDS = range(300)


@pytest.mark.parametrize("side", list(Side))
def test_the_same_seed_draws_the_same_conversation(side):
    """A conversation is a function of its generator's state and its side."""
    first, second = (draw_conversation(random.Random(5), NoteShape(side), 8, 0.3) for _ in range(2))
    assert first == second
    assert first != draw_conversation(random.Random(6), NoteShape(side), 8, 0.3)


def test_the_generator_command_repeats_byte_for_byte():
    """Two runs of the command with one seed print the same bytes, whatever the hash seed of the process."""
    outputs = {
        subprocess.run(
            [sys.executable, STARTER / "generate.py", "--count", "3", "--seed", "7"],
            check=True,
            capture_output=True,
            env={"PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_every_fact_stands_in_the_text():
    """What a note's value claims, its text says."""
    for seed in SEEDS:
        note = draw_note(random.Random(seed), SHAPE)
        for entry in note.entries:
            facts = [entry.machine, *(fact_of(entry, attribute) for attribute in ATTRIBUTES)]
            assert all(fact in note.text for fact in facts if fact is not None)
        assert all(fact is None or fact in note.text for fact in (note.lead, note.date, f"nit {note.unit}"))


def test_an_attribute_answer_holds_the_fact_and_the_machine_or_is_a_refusal():
    """The answer to 'what is' names the machine and the fact as the note spells it, or is the refusal."""
    for seed in SEEDS:
        rng = random.Random(seed)
        note = draw_note(rng, SHAPE)
        turn = ask_attribute(rng, note)
        fact = fact_of(turn.entry, turn.attribute)
        if fact is None:
            assert turn.answer == NOT_SAID
        else:
            assert fact in turn.answer
            assert fact in note.text
            assert turn.entry.machine in turn.answer


def test_a_reverse_question_has_one_answer():
    """The fact asked about belongs to one machine only."""
    for seed in SEEDS:
        rng = random.Random(seed)
        note = draw_note(rng, SHAPE)
        turn = ask_reverse(rng, note)
        assert [entry for entry in note.entries if entry.machine in turn.answer] == [turn.entry]


def test_what_is_absent_is_not_in_the_note():
    """A question of the absent kind names none of the note's machines, or asks what no note ever says."""
    unsaid = {re.sub(r"\{m\}.*", "", form) for form in UNSAID}
    for seed in SEEDS:
        rng = random.Random(seed)
        note = draw_note(rng, SHAPE)
        question = ask_absent(rng, note, Side.EVAL).question
        names_one = any(entry.tag in question for entry in note.entries)
        assert not names_one or question.startswith(tuple(unsaid))


def test_summary_and_list_name_every_machine_in_order():
    """The summary is one sentence; both name the machines in the note's order."""
    for seed in SEEDS:
        rng = random.Random(seed)
        note = draw_note(rng, SHAPE)
        for answer in (ask_summary(rng, note).answer, ask_list(rng, note).answer):
            places = [answer.index(entry.machine) for entry in note.entries]
            assert places == sorted(places)
            assert answer.count(". ") == 0
            assert answer.endswith(".")


def test_an_extraction_answer_obeys_its_schema():
    """The answer parses, has the schema's keys in order, and every value is of the schema's type."""
    types = {"string": str, "integer": int, "number": (int, float), "null": type(None)}
    for seed in SEEDS:
        rng = random.Random(seed)
        note = draw_note(rng, SHAPE)
        turn = ask_extraction(rng, note)
        schema = json.loads(turn.question[turn.question.index("{") :])
        answer = json.loads(turn.answer)
        assert list(answer) == list(schema["properties"]) == schema.get("required", list(answer))
        for key, value in answer.items():
            named = schema["properties"][key]["type"]
            allowed = named if isinstance(named, list) else [named]
            assert any(isinstance(value, types[name]) for name in allowed)
            assert value is None or str(value).lower() in note.text.lower() or key in ("entries", "entry_count")


def test_roles_alternate_and_every_user_turn_is_answered():
    """After an optional system message, user and assistant take turns and the assistant speaks last."""
    for seed in SEEDS:
        for conversation in (draw_talk(random.Random(seed)), draw_conversation(random.Random(seed), SHAPE, 4)):
            roles = [message["role"] for message in conversation.messages]
            if roles[0] == "system":
                roles = roles[1:]
            assert roles == ["user", "assistant"] * (len(roles) // 2)
