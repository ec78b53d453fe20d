"""Draw and spell synthetic shift logs and incident notes.

Promise: the same generator state gives the same note; every combination in a note lies on the side
that was asked for (`plant_split`); every fact of a `Note` stands literally in its text.
Never: asks questions (`plant_questions` does) or knows of tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from plant_split import Side, side_of
from plant_words import (
    ACTION_OBJECTS,
    ACTION_VERBS,
    EQUIPMENT,
    FAULT_ADJECTIVES,
    FAULT_NOUNS,
    FIRST_NAMES,
    LAST_NAMES,
    MONTHS,
    QUANTITIES,
    SHIFTS,
    STATUSES,
    Quantity,
    chance,
    syllable_name,
)

T = TypeVar("T")

# Shorter orders are too few to split: holding them out would hold out whole kinds of machine or clause.
MIN_SPLIT_CLAUSES = 3
MIN_SPLIT_MACHINES = 2


@dataclass(frozen=True, slots=True)
class Reading:
    """One measured value, spelled as in the note."""

    quantity: Quantity
    value: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a note: a machine, what happened, and the clauses that follow in their order."""

    time: str
    equipment: str
    tag: str
    fault: str
    reporter: str | None
    action: str | None
    status: str | None
    readings: tuple[Reading, ...]
    clause_order: tuple[str, ...]

    @property
    def machine(self) -> str:
        """The machine as notes and answers name it."""
        return f"{self.equipment} {self.tag}"


@dataclass(frozen=True, slots=True)
class Note:
    """A whole note and its text."""

    unit: str
    shift: str
    date: str | None
    lead: str | None
    entries: tuple[Entry, ...]
    text: str


@dataclass(frozen=True, slots=True)
class NoteShape:
    """What the caller wants of a note: which side, and how many entries."""

    side: Side
    min_entries: int = 1
    max_entries: int = 3


def _draw_on_side(side: Side, draw: Callable[[], T], side_of_value: Callable[[T], Side]) -> T:
    """Draw until the value lies on the side: the split is a law about values, not about draws."""
    while True:
        value = draw()
        if side_of_value(value) is side:
            return value


def draw_name(rng: random.Random, side: Side) -> str:
    """Draw a person: two times in three from the lists, else spelled from syllables."""

    def draw() -> tuple[str, str]:
        if chance(rng, 0.35):
            return syllable_name(rng), syllable_name(rng)
        return rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)

    return " ".join(_draw_on_side(side, draw, lambda pair: side_of("name", *pair)))


def draw_machine(rng: random.Random, side: Side, like: str | None = None) -> tuple[str, str]:
    """Draw a machine and its tag; `like` asks for a tag one digit away, which forces exact reading."""

    def draw() -> tuple[str, str]:
        equipment = rng.choice(tuple(EQUIPMENT))
        number = str(rng.randint(100, 999))
        if like is not None:
            prefix, old = like.split("-")
            place = rng.randrange(3)
            number = old[:place] + rng.choice("123456789") + old[place + 1 :]
            equipment = next(name for name, letters in EQUIPMENT.items() if letters == prefix)
        return equipment, f"{EQUIPMENT[equipment]}-{number}"

    return _draw_on_side(side, draw, lambda pair: side_of("machine", *pair))


def draw_reading(rng: random.Random, side: Side, quantity: Quantity) -> Reading:
    """Draw a value of the quantity."""
    value = _draw_on_side(side, lambda: quantity.draw(rng), lambda value: side_of("reading", quantity.name, value))
    return Reading(quantity, value)


def _draw_phrase(
    rng: random.Random, side: Side, kind: str, first: tuple[str, ...], second: tuple[str, ...]
) -> tuple[str, str]:
    return _draw_on_side(
        side,
        lambda: (rng.choice(first), rng.choice(second)),
        lambda pair: side_of(kind, *pair),
    )


def _draw_clause_order(rng: random.Random, side: Side) -> tuple[tuple[str, ...], tuple[Quantity, ...]]:
    """Draw which clauses an entry has and in which order; orders of three or more are split."""

    def draw() -> tuple[tuple[str, ...], tuple[Quantity, ...]]:
        quantities = tuple(rng.sample(QUANTITIES, rng.choice((0, 1, 1, 2, 2))))
        clauses = [quantity.name for quantity in quantities]
        clauses += [name for name in ("reporter", "action", "status") if chance(rng, 0.75)]
        rng.shuffle(clauses)
        return tuple(clauses), quantities

    def side_of_order(drawn: tuple[tuple[str, ...], tuple[Quantity, ...]]) -> Side:
        return side_of("clauses", *drawn[0]) if len(drawn[0]) >= MIN_SPLIT_CLAUSES else side

    return _draw_on_side(side, draw, side_of_order)


def _draw_entry(rng: random.Random, side: Side, time: str, machine: tuple[str, str], reporter: str) -> Entry:
    clauses, quantities = _draw_clause_order(rng, side)
    fault = " ".join(_draw_phrase(rng, side, "fault", FAULT_ADJECTIVES, FAULT_NOUNS))
    verb, thing = _draw_phrase(rng, side, "action", ACTION_VERBS, ACTION_OBJECTS)
    return Entry(
        time=time,
        equipment=machine[0],
        tag=machine[1],
        fault=fault,
        reporter=reporter if "reporter" in clauses else None,
        action=f"{verb} the {thing}" if "action" in clauses else None,
        status=rng.choice(STATUSES) if "status" in clauses else None,
        readings=tuple(draw_reading(rng, side, quantity) for quantity in quantities),
        clause_order=clauses,
    )


def _draw_machines(rng: random.Random, side: Side, count: int) -> list[tuple[str, str]]:
    """Draw distinct machines whose order of kinds lies on the side."""

    def draw() -> list[tuple[str, str]]:
        machines: list[tuple[str, str]] = []
        while len(machines) < count:
            # One in six is a near twin of an earlier tag, so that a glance at a tag is not enough.
            like = rng.choice(machines)[1] if machines and chance(rng, 0.17) else None
            machine = draw_machine(rng, side, like)
            if machine not in machines:
                machines.append(machine)
        return machines

    def side_of_kinds(machines: list[tuple[str, str]]) -> Side:
        kinds = [equipment for equipment, _ in machines]
        return side_of("order", *kinds) if count >= MIN_SPLIT_MACHINES else side

    return _draw_on_side(side, draw, side_of_kinds)


def draw_note(rng: random.Random, shape: NoteShape) -> Note:
    """Draw one note of the shape."""
    side = shape.side
    count = rng.randint(shape.min_entries, shape.max_entries)
    machines = _draw_machines(rng, side, count)
    minutes = sorted(rng.sample(range(24 * 60), count))
    times = [f"{minute // 60:02d}:{minute % 60:02d}" for minute in minutes]
    people: list[str] = []
    while len(people) < count + 1:
        name = draw_name(rng, side)
        if name not in people:
            people.append(name)
    entries = tuple(
        _draw_entry(rng, side, time, machine, reporter)
        for time, machine, reporter in zip(times, machines, people[1:], strict=True)
    )
    unit = str(rng.randint(1, 60))
    shift = rng.choice(SHIFTS)
    date = f"{rng.randint(1, 28)} {rng.choice(MONTHS)}" if chance(rng, 0.7) else None
    lead = people[0] if chance(rng, 0.8) else None
    bare = Note(unit, shift, date, lead, entries, text="")
    return replace(bare, text=_spell_note(rng, bare))


def _spell_note(rng: random.Random, note: Note) -> str:
    title = "Incident note" if len(note.entries) == 1 else "Shift log"
    head = [f"unit {note.unit}", f"{note.shift} shift"]
    if note.date is not None:
        head.append(note.date)
    if note.lead is not None:
        head.append(f"lead {note.lead}")
    rng.shuffle(head)
    joined = ", ".join(head)
    header = rng.choice((f"{title}: {joined}.", f"{title}, {joined}.", f"{title}. {joined[0].upper() + joined[1:]}."))
    style = rng.randrange(3)
    bullet = rng.choice(("", "", "- ", "number"))
    lines = [header]
    for place, entry in enumerate(note.entries, start=1):
        mark = f"{place}. " if bullet == "number" else bullet
        lines.append(mark + _spell_entry(rng, style, entry))
    return "\n".join(lines)


def _spell_entry(rng: random.Random, style: int, entry: Entry) -> str:
    head = (
        f"{entry.machine} at {entry.time}: {entry.fault}.",
        f"{entry.machine}, {entry.time}, {entry.fault}.",
        f"{entry.machine} had a {entry.fault} at {entry.time}.",
    )[style]
    return " ".join([head, *(_spell_clause(rng, entry, clause) for clause in entry.clause_order)])


def _spell_clause(rng: random.Random, entry: Entry, clause: str) -> str:
    if clause == "reporter":
        return rng.choice(
            (
                f"Reported by {entry.reporter}.",
                f"{entry.reporter} reported it.",
                f"Reporter: {entry.reporter}.",
            )
        )
    if clause == "action":
        return rng.choice((f"Action: {entry.action}.", f"The crew {entry.action}."))
    if clause == "status":
        return rng.choice((f"Status: {entry.status}.", f"Now {entry.status}."))
    reading = next(reading for reading in entry.readings if reading.quantity.name == clause)
    value = f"{reading.value} {reading.quantity.unit}"
    title = clause.capitalize()
    return rng.choice((f"{title} {value}.", f"{title} was {value}.", f"{title}: {value}."))
