"""JSON from a model folder, read without forgiveness: UTF-8, one object, no key twice, no NaN."""

from __future__ import annotations

import json

from engine.weights.errors import FileMalformed


def parse_json_object(data: bytes, file: str) -> dict[str, object]:
    """Parse one JSON object.

    Raises:
        FileMalformed: the bytes are not exactly one strict JSON object.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FileMalformed(file, f"it is not strict JSON: {error}") from error
    if not isinstance(value, dict):
        raise FileMalformed(file, "it is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!r} stands twice")
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")
