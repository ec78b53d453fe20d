"""A failed validation as one refusal in plain words that names the field as the client wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from appliance.api.client_text import shown
from appliance.api.wire import UNSUPPORTED
from appliance.errors import BadRequest

_Context = Mapping[str, Any]
_WORDS: Mapping[str, Callable[[_Context], str]] = {
    "missing": lambda _: "is required",
    "extra_forbidden": lambda _: "is not a field of this request; remove it",
    "string_type": lambda _: "must be a string",
    "int_type": lambda _: "must be a whole number",
    "int_from_float": lambda _: "must be a whole number",
    "float_type": lambda _: "must be a number",
    "bool_type": lambda _: "must be true or false",
    "list_type": lambda _: "must be a list",
    "dict_type": lambda _: "must be an object",
    "model_type": lambda _: "must be an object",
    "none_required": lambda _: "must be null",
    "finite_number": lambda _: "must be a finite number",
    "literal_error": lambda context: f"must be {context['expected']}",
    "greater_than": lambda context: f"must be above {context['gt']:g}",
    "greater_than_equal": lambda context: f"must be at least {context['ge']:g}",
    "less_than": lambda context: f"must be below {context['lt']:g}",
    "less_than_equal": lambda context: f"must be at most {context['le']:g}",
    "string_too_short": lambda context: f"must have at least {context['min_length']} characters",
    "string_too_long": lambda context: f"must have at most {context['max_length']} characters",
    "too_short": lambda context: f"must have at least {context['min_length']} entries",
    "too_long": lambda context: f"must have at most {context['max_length']} entries",
    "string_pattern_mismatch": lambda _: "does not have the form that is needed",
    "union_tag_not_found": lambda _: "has a type that is not taken here",
    "refused_value": lambda context: str(context["message"]),
    UNSUPPORTED: lambda _: "is not supported by this server; leave it out",
}
_CODES = {
    "missing": "missing_parameter",
    "extra_forbidden": "unknown_parameter",
    UNSUPPORTED: UNSUPPORTED,
}
_FIRST = ("extra_forbidden", UNSUPPORTED)
"""A field we do not honour is named before any other fault."""


def bad_request(failure: ValidationError, value: object) -> BadRequest:
    """Choose one error and say it; where several types were possible for one value, name all of them."""
    errors = failure.errors(include_url=False, include_input=False)
    first = next((error for error in errors if error["type"] in _FIRST), errors[0])
    path = _path(first, value)
    same_field = [(_path(error, value), error) for error in errors if _path(error, value)[:1] == path[:1]]
    if first["type"] not in _FIRST:
        path = max((found for found, _ in same_field), key=len)
    words = dict.fromkeys(_words(error) for found, error in same_field if found == path)
    name = _name(path)
    return BadRequest(
        f"{name or 'the body'} {' or '.join(words)}",
        code=_CODES.get(first["type"], "bad_value"),
        param=name or None,
    )


def _words(error: ErrorDetails) -> str:
    # A kind of error without words of ours must not show the library's: they may quote the input.
    words = _WORDS.get(error["type"])
    return "has a value that is not taken here" if words is None else words(error.get("ctx") or {})


def _path(error: ErrorDetails, value: object) -> tuple[str | int, ...]:
    """Follow the location through the client's value: steps that are names of our types are left out."""
    path: list[str | int] = []
    for step in error["loc"]:
        last = step is error["loc"][-1]
        if isinstance(value, dict) and (step in value or (last and error["type"] == "missing")):
            path.append(step)
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int):
            path.append(step)
            value = value[step] if step < len(value) else None
    return tuple(path)


def _name(path: Sequence[str | int]) -> str:
    name = ""
    for step in path:
        if isinstance(step, int):
            name += f"[{step}]"
        else:
            name += f".{shown(step)}" if name else shown(step)
    return shown(name)
