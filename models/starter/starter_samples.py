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
    "22:10 Pump P-204: small oil leak. Temperature 81 C. Reported by Ivo Hartmann. "
    "Action: tightened the seal. Status: open.\n"
    "23:45 Valve V-310: slow pressure drop. Pressure 4.2 bar. Nadia Kovacs reported it. "
    "The crew replaced the gasket. Status: closed.\n"
    "23:58 Fan F-118: strange bearing noise. Vibration 7.9 mm/s. Reporter: Tom Okafor. Status: waiting for parts."
)
INCIDENT = (
    "Incident note: unit 12, early shift, 2 June, lead Hana Sato.\n"
    "05:25 Compressor K-731: sudden motor trip. Current 164 A. Reported by Felix Brandt. "
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
    ("Who reported the fault on P-204?", "Ivo Hartmann."),
    ("What was done about it?", "Tightened the seal."),
    ("And its temperature?", "81 C."),
    ("What was wrong with Valve V-310?", "Slow pressure drop."),
    ("And F-118?", "Strange bearing noise."),
    ("What is the status of it?", "Waiting for parts."),
    ("Which machine did Nadia Kovacs report?", "Valve V-310."),
    ("What was the flow of V-310?", NOT_SAID),
    ("Who led the shift?", "Mara Lindqvist."),
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
        _about(INCIDENT, "Who reported it?", "Felix Brandt."),
        _about(INCIDENT, "What was the current of K-731?", "164 A."),
        _about(INCIDENT, "What was the pressure of K-731?", NOT_SAID),
        Case("sample", ({"role": "user", "content": "Hello"},), HELLO),
        Case("sample", ({"role": "user", "content": "What can you do?"},), ABILITIES),
        Case("sample", ({"role": "user", "content": "Summarise the note in one sentence."},), NO_NOTE),
    ]
    return cases
