"""What a filter means: a frozen tree of comparisons.

Pure.  Laws: an expression is true or false of a leaf, never unknown - a leaf without a fact differs from every value;
`canonical` gives one text whose parse means the same and has the same canonical text.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from audit.search.fields import RANGE_END

_BARE = re.compile(r"[A-Za-z0-9_./:@+*~-]+")
KEYWORDS = frozenset({"and", "or", "not", "in"})
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Equal:
    """A text field has this value, or holds it among several."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Within:
    """`low <= field < high`, of `time` in microseconds or `index`."""

    field: str
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Not:
    """The other way round."""

    part: Expression
    at: int = field(default=0, compare=False)
    """Where it begins in the text that was parsed."""


@dataclass(frozen=True, slots=True)
class And:
    """Every part holds; without parts, everything does."""

    parts: tuple[Expression, ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds."""

    parts: tuple[Expression, ...]
    at: int = field(default=0, compare=False)


Expression: TypeAlias = Equal | Within | Not | And | Or
EVERYTHING = And(())


def all_of(parts: Sequence[Expression], at: int = 0) -> Expression:
    """Join by `and`; nested ones are flattened, one alone stands for itself."""
    if len(parts) == 1:
        return parts[0]
    return And(tuple(inner for part in parts for inner in (part.parts if isinstance(part, And) else (part,))), at)


def any_of(parts: Sequence[Expression], at: int = 0) -> Expression:
    """Join by `or`, likewise."""
    if len(parts) == 1:
        return parts[0]
    return Or(tuple(inner for part in parts for inner in (part.parts if isinstance(part, Or) else (part,))), at)


def canonical(expression: Expression) -> str:
    """Give the one text of an expression: what a record of a read says, and what its digest is over."""
    match expression:
        case Equal(name, value):
            return f"{name}={quoted(value)}"
        case Within():
            return " and ".join(_bounds(expression))
        case Not(part):
            return f"not {_inside(part)}"
        case And(parts):
            return " and ".join(canonical(part) if not isinstance(part, Or) else _inside(part) for part in parts)
        case Or(parts):
            return " or ".join(_inside(part) if _is_and(part) else canonical(part) for part in parts)


def quoted(value: str) -> str:
    """Give a value as it stands in a filter: bare where that is unmistakable, in double quotes elsewhere."""
    if _BARE.fullmatch(value) and value.lower() not in KEYWORDS:
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def shown_time(ts_us: int) -> str:
    """Give a time in full precision, so that no leaf changes sides."""
    return (_EPOCH + dt.timedelta(microseconds=ts_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _inside(part: Expression) -> str:
    plain = isinstance(part, Equal) or (isinstance(part, Within) and not _is_and(part))
    return canonical(part) if plain else f"({canonical(part)})"


def _is_and(part: Expression) -> bool:
    return isinstance(part, And) or (isinstance(part, Within) and len(_bounds(part)) > 1)


def _bounds(part: Within) -> list[str]:
    shown = shown_time if part.field == "time" else str
    low, high = (part.low, part.high) if part.low < part.high else (0, 0)  # nothing is within, in one way only
    bounds = [f"{part.field}>={shown(low)}"] if low > 0 or high >= RANGE_END else []
    return bounds + ([f"{part.field}<{shown(high)}"] if high < RANGE_END else [])
