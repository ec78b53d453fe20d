"""Conversations to show people: two written notes and what one would ask about them.

Promise: the expected answers are written by hand here; `evaluate.py --write` puts into samples.json only
those that the weights really give.
Never: part of the exam's score.
"""

from __future__ import annotations

import json
from itertools import pairwise

from plant_questions import NOT_SAID
from plant_talk import ABILITIES, HELLO, NO_NOTE
from starter_exam import Case

SHIFT_LOG = (
    "Shift log: unit 7, night shift, 14 March, lead Mara Lindqvist.\n"
    "Pump P-204 at 22:10: small oil leak. Temperature 81 C. Reported by Ivo Hartmann. "
    "Action: tightened the seal. Status: open.\n"
    "Valve V-310 at 23:45: slow pressure drop. Pressure 4.2 bar. Nadia Kovacs reported it. "
    "The crew replaced the gasket. Status: closed.\n"
    "Fan F-118 at 23:58: strange bearing noise. Vibration 7.9 mm/s. Reporter: Tom Okafor. Status: waiting for parts."
)
INCIDENT = (
    "Incident note: unit 12, early shift, 2 June, lead Hana Sato.\n"
    "Compressor K-731 at 05:25: sudden motor trip. Current 164 A. Reported by Felix Brandt. "
    "Action: reset the breaker. Status: under watch."
)
ENTRY_SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "tag": {"type": "string"},
        "reporter": {"type": "string"},
        "temperature": {"type": "integer"},
        "status": {"type": "string"},
    },
}
_SUMMARY = (
    "The night shift in unit 7 logged 3 entries: Pump P-204 (small oil leak), "
    "Valve V-310 (slow pressure drop) and Fan F-118 (strange bearing noise)."
)
_LOG_TURNS: tuple[tuple[str, str], ...] = (
    ("Who reported the fault on P-204?", "Pump P-204 was reported by Ivo Hartmann."),
    ("What was done about it?", "On Pump P-204 the crew tightened the seal."),
    ("And its temperature?", "The temperature of Pump P-204 was 81 C."),
    ("What was wrong with Valve V-310?", "Valve V-310 had a slow pressure drop."),
    ("And F-118?", "Fan F-118 had a strange bearing noise."),
    ("What is the status of it?", "Fan F-118 is waiting for parts."),
    ("Which machine did Nadia Kovacs report?", "Nadia Kovacs reported Valve V-310."),
    ("What was the flow of V-310?", NOT_SAID),
    ("Who led the shift?", "The shift lead was Mara Lindqvist."),
    (
        "Summarise the note in one sentence.",
        _SUMMARY,
    ),
)
_EXTRACTION = f"Extract the entry for P-204 as JSON with this schema: {json.dumps(ENTRY_SCHEMA)}"
_EXTRACTED = '{"tag": "P-204", "reporter": "Ivo Hartmann", "temperature": 81, "status": "open"}'


def _about(note: str, question: str, answer: str) -> Case:
    return Case("sample", ({"role": "user", "content": f"{note}\n\n{question}"},), answer)


def sample_cases() -> list[Case]:
    """Return every sample with the answer it ought to get."""
    cases = [_about(SHIFT_LOG, question, answer) for question, answer in _LOG_TURNS if " it" not in question]
    cases = [case for case in cases if "And " not in case.messages[0]["content"].rsplit("\n\n", 1)[1]]
    messages = [{"role": "user", "content": f"{SHIFT_LOG}\n\n{_LOG_TURNS[0][0]}"}]
    for (_, answer), (following, following_answer) in pairwise(_LOG_TURNS):
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": following}]
        cases.append(Case("sample", tuple(messages), following_answer))
    cases += [
        _about(SHIFT_LOG, _EXTRACTION, _EXTRACTED),
        _about(INCIDENT, "Who reported it?", "Compressor K-731 was reported by Felix Brandt."),
        _about(INCIDENT, "What was the current of K-731?", "The current of Compressor K-731 was 164 A."),
        _about(INCIDENT, "What was the pressure of K-731?", NOT_SAID),
        Case("sample", ({"role": "user", "content": "Hello"},), HELLO),
        Case("sample", ({"role": "user", "content": "What can you do?"},), ABILITIES),
        Case("sample", ({"role": "user", "content": "Summarise the note in one sentence."},), NO_NOTE),
    ]
    return cases
