"""Count leaves by what they say: one pass, little memory, from decoded bytes alone.

Pure.  Exactness: counts and totals are exact.  Quantiles are the nearest rank over every value, exact while all
histograms together have at most `MAX_CELLS` different values; beyond that values are rounded to fewer digits, and each
quantile says to how many.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from audit.entry import Entry
from audit.errors import AuditRefused
from audit.search.fields import TEXT_FIELDS
from audit.search.leaf_values import values_of

MAX_FIELDS = 2
MAX_GROUPS = 4_096
MAX_CELLS = 200_000
BUCKETS: Mapping[str, str] = {"day": "%Y-%m-%d", "hour": "%Y-%m-%dT%H"}
_DIGITS = (3, 2, 1)

Key = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """How one number was spread."""

    count: int
    minimum: int
    p50: int
    p90: int
    p95: int
    p99: int
    maximum: int
    digits: int | None
    """Digits that values were rounded to; None: exact."""


@dataclass(frozen=True, slots=True)
class Group:
    """What the leaves of one key have in common."""

    key: Key
    """In the order of `Aggregate.by`; None: no such fact."""
    count: int
    totals: Mapping[str, int]
    quantiles: Mapping[str, Quantiles]
    """Of those numbers that the group has."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Groups in the order of their keys, and all of them together."""

    by: tuple[str, ...]
    num_entries: int
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Which facts are added up and spread, and of which kinds: a number that two records repeat counts once."""

    kinds: Collection[str]
    totals: Sequence[str]
    spreads: Sequence[str]


@dataclass(slots=True)
class _Tally:
    count: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    values: dict[str, Counter[int]] = field(default_factory=dict)


def aggregate(entries: Iterable[Entry], by: Sequence[str], numbers: Numbers) -> Aggregate:
    """Count the entries by up to two fields and up to one of `day` and `hour`.

    A leaf that holds several values of a field counts in the group of each; `num_entries` counts it once.

    Raises:
        AuditRefused: nothing to count by, a field that does not exist, or more than `MAX_GROUPS` groups.
    """
    require_fields(by)
    tallies: dict[Key, _Tally] = {}
    rounding = _Rounding()
    num_entries = 0
    for entry in entries:
        num_entries += 1
        for key in product(*(_values(entry, name) for name in by)):
            tally = tallies.get(key)
            if tally is None:
                if len(tallies) >= MAX_GROUPS:
                    raise AuditRefused(f"more than {MAX_GROUPS} groups", hint="narrow the filter, or count by less")
                tally = tallies[key] = _Tally()
            tally.count += 1
            if entry.leaf.event.kind in numbers.kinds:
                _add_numbers(tally, entry.leaf.event.facts, numbers, rounding)
        if rounding.num_cells > MAX_CELLS:
            rounding.coarsen(tallies.values())
    groups = (
        Group(key, tally.count, dict(sorted(tally.totals.items())), _spreads(tally, rounding.digits))
        for key, tally in sorted(tallies.items(), key=lambda item: [(part is not None, part or "") for part in item[0]])
    )
    return Aggregate(tuple(by), num_entries, tuple(groups))


class _Rounding:
    """How exact values still are; owned by one aggregation."""

    def __init__(self) -> None:
        self.digits: int | None = None
        self.num_cells = 0

    def rounded(self, value: int) -> int:
        return value if self.digits is None else _round(value, self.digits)

    def coarsen(self, tallies: Iterable[_Tally]) -> None:
        """Take the next number of digits, and count again what is left."""
        self.digits = next((digits for digits in _DIGITS if self.digits is None or digits < self.digits), 1)
        self.num_cells = 0
        for tally in tallies:
            for name, values in tally.values.items():
                coarse: Counter[int] = Counter()
                for value, count in values.items():
                    coarse[_round(value, self.digits)] += count
                tally.values[name] = coarse
                self.num_cells += len(coarse)


def require_fields(by: Sequence[str]) -> None:
    """Refuse what cannot be counted by.

    Raises:
        AuditRefused: it says what can be.
    """
    known = (*TEXT_FIELDS, *BUCKETS)
    unknown = next((name for name in by if name not in known), None)
    if unknown is not None:
        raise AuditRefused(f"nothing to count by is called {unknown[:64]!r}", hint=f"one of {', '.join(known)}")
    buckets = [name for name in by if name in BUCKETS]
    if not by or len(set(by)) < len(by) or len(buckets) > 1 or len(by) - len(buckets) > MAX_FIELDS:
        raise AuditRefused(f"count by one to {MAX_FIELDS} different fields, and by day or hour")


def _values(entry: Entry, name: str) -> tuple[str | None, ...]:
    event = entry.leaf.event
    if name in BUCKETS:
        return (dt.datetime.fromtimestamp(event.ts_us // 1_000_000, tz=dt.UTC).strftime(BUCKETS[name]),)
    if name == "role":
        return (event.role,)  # as held together
    return tuple(dict.fromkeys(values_of(entry.leaf, name))) or (None,)


def _add_numbers(tally: _Tally, facts: Mapping[str, object], numbers: Numbers, rounding: _Rounding) -> None:
    for name in numbers.totals:
        value = facts.get(name)
        if type(value) is int:
            tally.totals[name] += value
    for name in numbers.spreads:
        value = facts.get(name)
        if type(value) is int and value >= 0:
            values = tally.values.setdefault(name, Counter())
            place = rounding.rounded(value)
            rounding.num_cells += place not in values
            values[place] += 1


def _spreads(tally: _Tally, digits: int | None) -> dict[str, Quantiles]:
    return {name: _spread(values, digits) for name, values in sorted(tally.values.items())}


def _spread(values: Counter[int], digits: int | None) -> Quantiles:
    ordered = sorted(values.items())
    count = sum(values.values())
    p50, p90, p95, p99 = (_rank(ordered, -(-count * percent // 100)) for percent in (50, 90, 95, 99))
    return Quantiles(count, ordered[0][0], p50, p90, p95, p99, ordered[-1][0], digits)


def _rank(ordered: Sequence[tuple[int, int]], rank: int) -> int:
    seen = 0
    for value, count in ordered:
        seen += count
        if seen >= rank:
            return value
    return ordered[-1][0]


def _round(value: int, digits: int) -> int:
    step: int = 10 ** max(0, len(str(value)) - digits)
    return value // step * step
