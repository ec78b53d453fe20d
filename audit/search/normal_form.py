"""An expression as alternatives, each of them a plain list of conditions that one ordered walk can answer.

Pure.  Law: a leaf is meant by the expression exactly if it is meant by one of the alternatives.  What contradicts
itself falls away, and what says the same twice stands once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from audit.errors import FilterRefused
from audit.search.expression import And, Equal, Expression, Not, Or, Within
from audit.search.fields import MANY_VALUED, RANGE_END

MAX_ALTERNATIVES = 64
Stretch = tuple[int, int]
WHOLE: Stretch = (0, RANGE_END)


@dataclass(frozen=True, slots=True)
class Alternative:
    """All of it must hold."""

    equal: tuple[tuple[str, str], ...] = ()
    """`(field, value)`, sorted."""
    differs: tuple[tuple[str, str], ...] = ()
    time: Stretch = WHOLE
    index: Stretch = WHOLE
    among: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """`(field, values)`: one of these; only `grouped` makes them."""


def alternatives(expression: Expression) -> tuple[Alternative, ...]:
    """Return the disjunctive normal form.

    Raises:
        FilterRefused: it has more than `MAX_ALTERNATIVES`; points at the part that multiplies.
    """
    return _expand(expression, positive=True)


def grouped(alternatives: Iterable[Alternative], fields: Iterable[str]) -> tuple[Alternative, ...]:
    """Join alternatives that differ in the value of one of these fields alone, field after field.

    `a in (1, 2) and b in (3, 4)` multiplies out to four; as one, it is two lists of values.
    """
    found = tuple(alternatives)
    for name in fields:
        values: dict[Alternative, list[str]] = {}
        for one in found:
            own = [value for field, value in one.equal if field == name]
            rest = replace(one, equal=tuple(pair for pair in one.equal if pair[0] != name)) if len(own) == 1 else one
            values.setdefault(rest, []).extend(own if len(own) == 1 else ())
        found = tuple(_with_values(rest, name, own) for rest, own in values.items())
    return found


def _with_values(rest: Alternative, name: str, values: Sequence[str]) -> Alternative:
    if not values:
        return rest
    if len(values) == 1:
        return replace(rest, equal=tuple(sorted((*rest.equal, (name, values[0])))))
    return replace(rest, among=(*rest.among, (name, tuple(values))))


def _expand(expression: Expression, *, positive: bool) -> tuple[Alternative, ...]:
    match expression:
        case Equal(name, value):
            pair = ((name, value),)
            return (Alternative(equal=pair) if positive else Alternative(differs=pair),)
        case Within(name, low, high):
            stretches = ((low, high),) if positive else ((0, low), (high, RANGE_END))
            return tuple(
                Alternative(time=one) if name == "time" else Alternative(index=one)
                for one in stretches
                if one[0] < one[1]
            )
        case Not(part):
            return _expand(part, positive=not positive)
        case And(parts, at) | Or(parts, at):
            if isinstance(expression, Or) == positive:
                return _capped((one for part in parts for one in _expand(part, positive=positive)), at)
            found: tuple[Alternative, ...] = (Alternative(),)
            for part in parts:
                more = _expand(part, positive=positive)
                joined = (_join(one, other) for one in found for other in more)
                found = _capped((one for one in joined if one is not None), at)
            return found


def _capped(found: Iterable[Alternative], at: int) -> tuple[Alternative, ...]:
    kept = tuple(dict.fromkeys(found))
    if len(kept) > MAX_ALTERNATIVES:
        raise FilterRefused(
            f"what begins here has more than {MAX_ALTERNATIVES} alternatives when it is multiplied out",
            at=at,
            hint="ask in parts",
        )
    return kept


def _join(one: Alternative, other: Alternative) -> Alternative | None:
    """Both must hold; None where they cannot."""
    equal = sorted({*one.equal, *other.equal})
    differs = {*one.differs, *other.differs}
    names = [name for name, _ in equal if name not in MANY_VALUED]
    if len(set(names)) < len(names) or differs.intersection(equal):
        return None
    settled = set(names)
    time, index = _common(one.time, other.time), _common(one.index, other.index)
    if time[0] >= time[1] or index[0] >= index[1]:
        return None
    open_ = sorted(pair for pair in differs if pair[0] not in settled)
    return Alternative(tuple(equal), tuple(open_), time, index)


def _common(one: Stretch, other: Stretch) -> Stretch:
    return max(one[0], other[0]), min(one[1], other[1])
