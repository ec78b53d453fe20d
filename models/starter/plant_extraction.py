"""Extraction tasks: a JSON schema in, exactly one JSON object out.

Promise: the answer parses, has the schema's keys in the schema's order and no others, each value of
the schema's type; a fact that the note does not hold is null, and only where the schema allows it.
Never: a schema with nesting, arrays or enums (the model is not taught them).
"""

from __future__ import annotations

import json
import random

from plant_notes import Entry, Note
from plant_questions import Turn
from plant_words import chance

JsonValue = str | int | float | None


def _entry_facts(entry: Entry) -> dict[str, tuple[tuple[str, ...], JsonValue]]:
    """Map each fact of an entry to the key names it may get and its value."""
    facts: dict[str, tuple[tuple[str, ...], JsonValue]] = {
        "tag": (("tag", "machine_tag"), entry.tag),
        "equipment": (("equipment", "machine"), entry.equipment),
        "time": (("time", "logged_at"), entry.time),
        "fault": (("fault", "problem"), entry.fault),
        "reporter": (("reporter", "reported_by"), entry.reporter),
        "action": (("action", "action_taken"), entry.action),
        "status": (("status",), entry.status),
    }
    for reading in entry.readings:
        decimals = reading.quantity.decimals
        value: JsonValue = float(reading.value) if decimals else int(reading.value)
        facts[reading.quantity.name] = ((reading.quantity.name,), value)
    return facts


def _note_facts(note: Note) -> dict[str, tuple[tuple[str, ...], JsonValue]]:
    return {
        "unit": (("unit",), int(note.unit)),
        "shift": (("shift",), note.shift),
        "date": (("date",), note.date),
        "lead": (("lead", "shift_lead"), note.lead),
        "entries": (("entries", "entry_count"), len(note.entries)),
    }


def _type_of(rng: random.Random, value: JsonValue) -> str | list[str]:
    if value is None:
        return ["string", "null"]
    if isinstance(value, str):
        return ["string", "null"] if chance(rng, 0.15) else "string"
    if isinstance(value, float):
        return "number"
    return rng.choice(("integer", "number"))


def ask_extraction(rng: random.Random, note: Note) -> Turn:
    """Ask for an incident note, one entry of a log, or a log's header, as JSON to a schema drawn for this question."""
    entry = rng.choice(note.entries)
    incident = len(note.entries) == 1
    whole_note = not incident and chance(rng, 0.2)
    facts = _note_facts(note) if whole_note else _entry_facts(entry)
    if incident:
        facts |= _note_facts(note)
    chosen = rng.sample(sorted(facts), rng.randint(2, min(6, len(facts))))
    properties: dict[str, dict[str, str | list[str]]] = {}
    answer: dict[str, JsonValue] = {}
    for fact in chosen:
        names, value = facts[fact]
        key = rng.choice(names)
        properties[key] = {"type": _type_of(rng, value)}
        answer[key] = value
    schema: dict[str, object] = {"type": "object", "properties": properties}
    if chance(rng, 0.3):
        schema["required"] = list(properties)
    if chance(rng, 0.15):
        schema["additionalProperties"] = False
    target = _target(rng, note, entry, whole_note=whole_note)
    form = rng.choice(
        (
            "Extract {t} as JSON with this schema: {s}",
            "Extract {t} as JSON to this schema: {s}",
            "Give {t} as JSON. Schema: {s}",
        )
    )
    question = form.format(t=target, s=json.dumps(schema))
    return Turn("extraction", question, json.dumps(answer), None if whole_note else entry, None)


def _target(rng: random.Random, note: Note, entry: Entry, *, whole_note: bool) -> str:
    if whole_note:
        return rng.choice(("the header", "the note header"))
    if len(note.entries) == 1 and chance(rng, 0.8):
        return rng.choice(("the incident", "the note"))
    return f"the entry for {rng.choice((entry.tag, entry.machine))}"
