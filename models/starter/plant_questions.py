"""Questions about a note and their only right answers.

Promise: an answer is computed from the `Note` value, never read back from its text; the same
generator state gives the same question; what the note does not hold is answered `NOT_SAID`.
Never: draws facts about the plant; draws only which question to ask and how to phrase it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from plant_notes import Entry, Note, draw_machine, draw_name
from plant_split import Side
from plant_words import QUANTITIES, STATUSES, chance

NOT_SAID = "The note does not say."
ATTRIBUTES: tuple[str, ...] = (
    "reporter", "time", "fault", "action", "status", *(quantity.name for quantity in QUANTITIES),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Turn:
    """One question with its answer, and what a follow-up may refer back to.

    Answers are whole sentences that name the machine again: polite to read, and for a small model the way
    to settle which machine is meant before it looks the fact up.
    """

    kind: str
    question: str
    answer: str
    entry: Entry | None = None
    attribute: str | None = None


def sentence(phrase: str) -> str:
    """Make a phrase of the note a short answer: first letter large, full stop at the end."""
    return f"{phrase[0].upper()}{phrase[1:]}."


def reading_of(entry: Entry, attribute: str) -> str | None:
    """Return the value with its unit, or None where the entry has no such reading."""
    for reading in entry.readings:
        if reading.quantity.name == attribute:
            return f"{reading.value} {reading.quantity.unit}"
    return None


def fact_of(entry: Entry, attribute: str) -> str | None:
    """Return an attribute of an entry as the note spells it, or None where the entry lacks it."""
    facts = {
        "reporter": entry.reporter,
        "time": entry.time,
        "fault": entry.fault,
        "action": entry.action,
        "status": entry.status,
    }
    return facts[attribute] if attribute in facts else reading_of(entry, attribute)


def answer_of(entry: Entry, attribute: str) -> str:
    """Return the sentence that answers 'what is this attribute of this entry', or the refusal."""
    fact = fact_of(entry, attribute)
    if fact is None:
        return NOT_SAID
    sentences = {
        "reporter": f"{entry.machine} was reported by {fact}.",
        "time": f"{entry.machine} was logged at {fact}.",
        "fault": f"{entry.machine} had a {fact}.",
        "action": f"On {entry.machine} the crew {fact}.",
        "status": f"{entry.machine} is {fact}.",
    }
    return sentences.get(attribute, f"The {attribute} of {entry.machine} was {fact}.")


def _ask(rng: random.Random, attribute: str, machine: str) -> str:
    """Phrase a question about an attribute of a machine, which may be 'it'."""
    forms = {
        "reporter": ("Who reported {m}?", "Who reported the fault on {m}?", "By whom was {m} reported?"),
        "time": ("When was {m} logged?", "At what time was {m} logged?", "What time was the entry for {m}?"),
        "fault": ("What was wrong with {m}?", "What happened to {m}?", "What fault did {m} have?"),
        "action": ("What was done about {m}?", "What did the crew do about {m}?", "What action was taken on {m}?"),
        "status": ("What is the status of {m}?", "What is the state of {m} now?"),
    }
    quantity_forms = (
        f"What was the {attribute} of {{m}}?",
        f"What {attribute} did {{m}} have?",
        f"What is the {attribute} of {{m}}?",
    )
    if machine == "it" and attribute not in forms:
        return rng.choice((f"What was its {attribute}?", f"What is its {attribute}?"))
    return rng.choice(forms.get(attribute, quantity_forms)).format(m=machine)


def _call(rng: random.Random, note: Note, entry: Entry) -> str:
    """Name a machine: by tag, in full, or by its kind where that is unambiguous."""
    same_kind = sum(other.equipment == entry.equipment for other in note.entries)
    if same_kind == 1 and chance(rng, 0.2):
        return f"the {entry.equipment.lower()}"
    return rng.choice((entry.tag, entry.machine, f"{entry.equipment.lower()} {entry.tag}"))


def _draw_attribute(rng: random.Random, entry: Entry) -> str:
    """Favour what the entry holds: a missing fact is a separate lesson, not most of them."""
    held = [name for name in ATTRIBUTES if fact_of(entry, name) is not None]
    return rng.choice(held) if chance(rng, 0.88) else rng.choice(ATTRIBUTES)


def _attribute_turn(kind: str, question: str, entry: Entry, attribute: str) -> Turn:
    return Turn(kind, question, answer_of(entry, attribute), entry, attribute)


def ask_attribute(rng: random.Random, note: Note) -> Turn:
    """Ask for one fact of one entry."""
    entry = rng.choice(note.entries)
    attribute = _draw_attribute(rng, entry)
    question = _ask(rng, attribute, _call(rng, note, entry))
    return _attribute_turn("attribute", question, entry, attribute)


def ask_status_yes_no(rng: random.Random, note: Note) -> Turn:
    """Ask whether an entry has a certain status."""
    entry = rng.choice([e for e in note.entries if e.status is not None] or note.entries)
    guess = entry.status if entry.status and chance(rng, 0.5) else rng.choice(STATUSES)
    machine = _call(rng, note, entry)
    question = rng.choice((f"Is {machine} {guess}?", f"Is {machine} now {guess}?"))
    answer = f"{'Yes' if guess == entry.status else 'No'}, {entry.machine} is {entry.status}."
    return Turn("yes_no", question, NOT_SAID if entry.status is None else answer, entry, "status")


def ask_reverse(rng: random.Random, note: Note) -> Turn:
    """Ask which machine a fact belongs to; the fact is of one entry only."""
    entry = rng.choice(note.entries)
    machine = entry.machine
    at_time = f"At {entry.time} it was {machine}."
    forms = [
        (f"Which machine was logged at {entry.time}?", at_time),
        (f"What was logged at {entry.time}?", at_time),
    ]
    if entry.reporter is not None:
        by_person = f"{entry.reporter} reported {machine}."
        forms += [
            (f"Which machine did {entry.reporter} report?", by_person),
            (f"What did {entry.reporter} report?", by_person),
        ]
    if sum(other.fault == entry.fault for other in note.entries) == 1:
        forms.append((f"Which machine had a {entry.fault}?", f"A {entry.fault} was found on {machine}."))
    for reading in entry.readings:
        if sum(reading in other.readings for other in note.entries) == 1:
            measured = f"a {reading.quantity.name} of {reading.value} {reading.quantity.unit}"
            forms.append((f"Which machine had {measured}?", f"{sentence(measured)[:-1]} was measured on {machine}."))
    question, answer = rng.choice(forms)
    return Turn("reverse", question, answer, entry, None)


def ask_header(rng: random.Random, note: Note) -> Turn:
    """Ask for a fact of the header line."""
    lead = NOT_SAID if note.lead is None else f"The shift lead was {note.lead}."
    date = NOT_SAID if note.date is None else f"The date is {note.date}."
    unit = f"It is unit {note.unit}."
    shift = f"It was the {note.shift} shift."
    forms = (
        (("Who led the shift?", "Who was the lead?", "Who was the shift lead?"), lead),
        (("What is the date of the note?", "On which date was this?", "Which day is the note from?"), date),
        (("Which unit is this?", "Which unit is the note about?", "What unit was it?"), unit),
        (("Which shift was it?", "Which shift wrote the note?"), shift),
    )
    questions, answer = rng.choice(forms)
    return Turn("header", rng.choice(questions), answer)


def ask_order(rng: random.Random, note: Note) -> Turn:
    """Ask for a machine by its place in the note."""
    places = ["first", "last", *("second", "third")[: len(note.entries) - 1]]
    place = rng.choice(places)
    index = {"first": 0, "second": 1, "third": 2}.get(place, -1)
    entry = note.entries[index]
    question = rng.choice((f"Which machine is listed {place}?", f"Which machine comes {place} in the note?"))
    return Turn("order", question, f"The {place} machine is {entry.machine}.", entry, None)


def ask_count(rng: random.Random, note: Note) -> Turn:
    """Ask how many entries the note has."""
    question = rng.choice(
        ("How many entries does the note have?", "How many machines are listed?", "How many entries are there?")
    )
    return Turn("count", question, f"The note has {_counted(len(note.entries))}.")


def _counted(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _joined(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def ask_list(rng: random.Random, note: Note) -> Turn:
    """Ask for all machines in the order of the note."""
    question = rng.choice(("List the machines.", "Which machines are in the note?", "List all machines in the note."))
    machines = _joined([entry.machine for entry in note.entries])
    opening = "The machine is" if len(note.entries) == 1 else "The machines are"
    return Turn("list", question, f"{opening} {machines}.")


UNSAID: tuple[str, ...] = (
    "Why did {m} fail?", "How much did it cost?", "Was anyone hurt?", "Who is the plant manager?",
    "When will {m} be repaired?", "Who made {m}?", "How old is {m}?", "What colour is {m}?",
    "Who checked {m}?", "Where is {m}?", "What is the phone number of {m}?", "What was the weather?",
)  # fmt: skip


def ask_absent(rng: random.Random, note: Note, side: Side) -> Turn:
    """Ask about a machine, a person or a matter that the note does not mention."""
    if chance(rng, 0.2):
        entry = rng.choice(note.entries)
        return Turn("absent", rng.choice(UNSAID).format(m=rng.choice((entry.tag, entry.machine))), NOT_SAID)
    if chance(rng, 0.3):
        name = draw_name(rng, side)
        if name in note.text:
            return ask_absent(rng, note, side)
        return Turn("absent", f"Which machine did {name} report?", NOT_SAID)
    like = rng.choice(note.entries).tag if chance(rng, 0.5) else None
    equipment, tag = draw_machine(rng, side, like)
    if tag in note.text:
        return ask_absent(rng, note, side)
    machine = rng.choice((tag, f"{equipment} {tag}", f"{equipment.lower()} {tag}"))
    return Turn("absent", _ask(rng, rng.choice(ATTRIBUTES), machine), NOT_SAID)


def ask_summary(rng: random.Random, note: Note) -> Turn:
    """Ask for the one-sentence summary in its fixed style."""
    question = rng.choice(
        (
            "Summarise the note in one sentence.",
            "Summarize the note in one sentence.",
            "Give a one-sentence summary.",
            "Write a summary in one sentence.",
        )
    )
    parts = [f"{entry.machine} ({entry.fault})" for entry in note.entries]
    count = _counted(len(parts))
    answer = f"The {note.shift} shift in unit {note.unit} logged {count}: {_joined(parts)}."
    return Turn("summary", question, answer)


def ask_follow_up(rng: random.Random, note: Note, last: Turn) -> Turn:
    """Ask on from the last turn: another fact of the same machine, or the same fact of another."""
    assert last.entry is not None, f"a {last.kind} turn has nothing to refer back to"
    others = [entry for entry in note.entries if entry is not last.entry]
    if last.attribute is not None and last.kind != "yes_no" and others and chance(rng, 0.4):
        entry, attribute = rng.choice(others), last.attribute
        machine = _call(rng, note, entry)
        question = rng.choice((f"And {machine}?", f"And for {machine}?", f"What about {machine}?"))
        return _attribute_turn("follow_up_machine", question, entry, attribute)
    entry = last.entry
    attribute = _draw_attribute(rng, entry)
    spoken = {"reporter": "Who reported it?", "time": "When was that?", "action": "What was done about it?"}
    short = {"fault": "fault", "status": "status", "time": "time", "action": "action", "reporter": "reporter"}
    forms = [_ask(rng, attribute, "it"), f"And its {short.get(attribute, attribute)}?"]
    if attribute in spoken:
        forms.append(spoken[attribute])
    return _attribute_turn("follow_up_fact", rng.choice(forms), entry, attribute)
