"""The note and the question that banner, demo and README show: written for the starter model."""

from __future__ import annotations

NOTE = (
    "Shift log: unit 7, night shift, 14 March, lead Mara Lindqvist.\n"
    "Pump P-204 at 22:10: small oil leak. Temperature 81 C. Reported by Ivo Hartmann. "
    "Action: tightened the seal. Status: open.\n"
    "Valve V-310 at 23:45: slow pressure drop. Pressure 4.2 bar. Nadia Kovacs reported it. "
    "The crew replaced the gasket. Status: closed."
)
QUESTION = "Who reported the fault on P-204?"
MESSAGES = [{"role": "user", "content": f"{NOTE}\n\n{QUESTION}"}]
"""As the starter was trained: note, blank line, question."""
ASKING = {"messages": MESSAGES, "temperature": 0, "max_completion_tokens": 64}
"""Enough for the starter's sentence; a larger model in its place must not hold the start up with a long answer."""
