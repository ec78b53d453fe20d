"""The split law: what the exam asks about never occurs in training."""

import random

from plant_notes import MIN_SPLIT_CLAUSES, MIN_SPLIT_MACHINES, NoteShape, draw_note
from plant_split import Side, side_of
from plant_words import FIRST_NAMES, LAST_NAMES


def _combinations(note):
    """Every split combination that a note holds."""
    people = [note.lead, *(entry.reporter for entry in note.entries)]
    found = {("name", *name.split(" ")) for name in people if name}
    for entry in note.entries:
        found.add(("machine", entry.equipment, entry.tag))
        found.add(("fault", *entry.fault.split(" ", 1)))
        found |= {("reading", reading.quantity.name, reading.value) for reading in entry.readings}
        if entry.action:
            found.add(("action", *entry.action.split(" the ")))
        if len(entry.clause_order) >= MIN_SPLIT_CLAUSES:
            found.add(("clauses", *entry.clause_order))
    if len(note.entries) >= MIN_SPLIT_MACHINES:
        found.add(("order", *(entry.equipment for entry in note.entries)))
    return found


def _drawn(side, count):
    rng = random.Random(f"split:{side}")
    return set().union(*(_combinations(draw_note(rng, NoteShape(side))) for _ in range(count)))


def test_every_combination_of_a_note_lies_on_its_side():
    """Whatever a note of one side mentions, the hash puts on that side."""
    for side in Side:
        assert {side_of(*combination) for combination in _drawn(side, 400)} == {side}


def test_training_and_exam_share_no_combination():
    """The two worlds are disjoint, kind by kind, and each kind is really drawn on both."""
    train, exam = _drawn(Side.TRAIN, 1500), _drawn(Side.EVAL, 400)
    assert not train & exam
    kinds = {"name", "machine", "fault", "reading", "action", "clauses", "order"}
    assert {kind for kind, *_ in train} == {kind for kind, *_ in exam} == kinds


def test_about_a_fifth_is_held_out():
    """The hash holds out about one listed name pair in five."""
    sides = [side_of("name", first, last) for first in FIRST_NAMES for last in LAST_NAMES]
    assert 0.17 < sides.count(Side.EVAL) / len(sides) < 0.23
