"""JSON with one meaning: what a second parser could read differently is refused.

Refused: duplicate keys, floats, NaN, integers beyond 2**53, lone surrogates, invalid UTF-8, a byte order mark, more
than the caller's bytes, more than 32 levels.  Writing gives one text per value: sorted keys, no spaces, UTF-8.
"""

from __future__ import annotations

import json
from typing import NoReturn, TypeAlias

from offline_bundle.errors import DocumentRefused

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json] | None"

MAX_DEPTH = 32
_MAX_INTEGER = 2**53
_HINT = "take the document from its source again; it may be damaged or made by another tool"


def parse(raw: bytes, document: str, *, max_bytes: int) -> dict[str, Json]:
    """Return the one object that `raw` is.

    Args:
        raw: the document's bytes.
        document: what it is meant to be, for the refusal.
        max_bytes: more is refused unread.
    """
    if len(raw) > max_bytes:
        raise DocumentRefused(document, f"{len(raw)} bytes, at most {max_bytes} are read", hint=_HINT)
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object_without_duplicates,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
            parse_int=_parse_integer,
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DocumentRefused(document, f"not strict JSON: {reason}", hint=_HINT) from error
    if not isinstance(value, dict):
        raise DocumentRefused(document, "not a JSON object", hint=_HINT)
    _check_values(value, document, MAX_DEPTH)
    return value


def canonical(value: dict[str, Json]) -> bytes:
    """The one text of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class Fields:
    """The fields of one object, each taken once by name and type; what is left over is refused by `end`."""

    def __init__(self, value: Json, document: str, place: str = "") -> None:
        if not isinstance(value, dict):
            raise DocumentRefused(document, f"{place or 'the document'} is not an object", hint=_HINT)
        self._left = dict(value)
        self._document = document
        self._place = place

    def text(self, name: str) -> str:
        """A string, possibly empty."""
        value = self._take(name)
        return value if isinstance(value, str) else self._refuse(name, "a string")

    def integer(self, name: str) -> int:
        """An integer; true and false are none."""
        value = self._take(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else self._refuse(name, "an integer")

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self._take(name)
        return value if isinstance(value, bool) else self._refuse(name, "true or false")

    def items(self, name: str) -> list[Json]:
        """A list."""
        value = self._take(name)
        return value if isinstance(value, list) else self._refuse(name, "a list")

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        values = self.items(name)
        texts = tuple(value for value in values if isinstance(value, str))
        return texts if len(texts) == len(values) else self._refuse(name, "a list of strings")

    def mapping(self, name: str) -> dict[str, Json]:
        """An object whose keys are data, not field names."""
        value = self._take(name)
        return value if isinstance(value, dict) else self._refuse(name, "an object")

    def fields(self, name: str) -> Fields:
        """An object with fields of its own."""
        return Fields(self._take(name), self._document, self._path(name))

    def has(self, name: str) -> bool:
        """Tell whether an optional field is there and not yet taken."""
        return name in self._left

    def end(self) -> None:
        """Refuse every field that nobody took."""
        if self._left:
            raise DocumentRefused(self._document, f"unknown field {self._path(min(self._left))!a}", hint=_HINT)

    def _take(self, name: str) -> Json:
        if name not in self._left:
            raise DocumentRefused(self._document, f"{self._path(name)} is missing", hint=_HINT)
        return self._left.pop(name)

    def _path(self, name: str) -> str:
        return f"{self._place}.{name}" if self._place else name

    def _refuse(self, name: str, wanted: str) -> NoReturn:
        raise DocumentRefused(self._document, f"{self._path(name)} is not {wanted}", hint=_HINT)


def _object_without_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"the number {text[:32]} is not an integer")


def _parse_integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > _MAX_INTEGER:  # noqa: PLR2004 - sign and 16 digits hold 2**53
        raise ValueError(f"the integer {text[:32]} is too large")
    return int(text)


def _check_values(value: Json, document: str, levels_left: int) -> None:
    if levels_left == 0:
        raise DocumentRefused(document, f"nested more than {MAX_DEPTH} levels", hint=_HINT)
    match value:
        case str():
            if any("\ud800" <= character <= "\udfff" for character in value):
                raise DocumentRefused(document, "a text holds half of a surrogate pair", hint=_HINT)
        case list():
            for item in value:
                _check_values(item, document, levels_left - 1)
        case dict():
            for key, item in value.items():
                _check_values(key, document, levels_left)
                _check_values(item, document, levels_left - 1)
        case _:
            pass
