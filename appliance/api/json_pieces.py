"""JSON in pieces: the text of a large body, made without holding the interpreter for long.

The C encoder keeps the interpreter from its first character to its last, in whichever thread it is called: one call
over an answer of megabytes would stop every other stream for as long.  Here it is called for one small piece after
another.

Promise: the pieces joined are what one call would have made.  Never: sends, or decides how large a body may be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
DEPTH: Final = 5
"""Levels taken apart: body, choices, choice, log-probabilities, and their list; what is one token's is one piece."""


def json_pieces(value: object, depth: int = DEPTH) -> Iterator[str]:
    """Give pieces that concatenate to `ENCODER.encode(value)`; every key is a string."""
    if depth == 0 or not value or not isinstance(value, (dict, list)):
        yield ENCODER.encode(value)
        return
    before, after = ("{", "}") if isinstance(value, dict) else ("[", "]")
    for key, inner in value.items() if isinstance(value, dict) else ((None, one) for one in value):
        yield before if key is None else f"{before}{ENCODER.encode(key)}:"
        yield from json_pieces(inner, depth - 1)
        before = ","
    yield after
