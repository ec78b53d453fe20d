"""What one run of a report is about, and the pieces that reports share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from audit.entry import Entry
from audit.search.expression import Equal, Expression, Within, all_of, any_of, shown_time
from audit.search.fields import RANGE_END

T = TypeVar("T")
MAX_ROWS = 5_000
"""Rows of one list in a report; what is beyond is counted."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A window of time over a log of a fixed size."""

    from_us: int
    until_us: int
    """Exclusive."""
    size: int
    """Entries from this index on came later and do not exist for the report."""
    first_index: int
    """First entry of the window; `size` where there is none."""
    last_index: int
    """Last entry of the window; -1 where there is none."""
    subject: str | None = None
    """R9: the request that the extract is about."""

    def contains(self, entry: Entry) -> bool:
        """Tell whether an entry is of the window's time."""
        return self.from_us <= entry.leaf.event.ts_us < self.until_us

    @property
    def window(self) -> Expression:
        """The window's entries."""
        return Within("time", self.from_us, self.until_us)

    @property
    def stretch(self) -> Expression:
        """Every entry from the window's first to its last, whatever their clocks said."""
        return Within("index", self.first_index, max(self.last_index + 1, self.first_index))

    @property
    def stretch_on(self) -> Expression:
        """Every entry from the window's first on: what began in the window may have ended later."""
        return Within("index", self.first_index, RANGE_END)


@dataclass(slots=True)
class Rows(Generic[T]):
    """A list that a report may fill without end, and that ends all the same."""

    kept: list[T]
    left_out: int = 0

    def add(self, row: T) -> None:
        """Keep it, or count it."""
        if len(self.kept) < MAX_ROWS:
            self.kept.append(row)
        else:
            self.left_out += 1


def kinds(names: Iterable[str]) -> Expression:
    """Entries of these kinds."""
    return any_of([Equal("kind", name) for name in names])


def both(*parts: Expression) -> Expression:
    """Entries that all of it means."""
    return all_of(parts)


def at(entry: Entry) -> str:
    """Give an entry's time as reports write it."""
    return shown_time(entry.leaf.event.ts_us)


def text_fact(facts: Mapping[str, object], name: str) -> str:
    """Give a fact that is text, or nothing."""
    value = facts.get(name)
    return value if isinstance(value, str) else ""


def int_fact(facts: Mapping[str, object], name: str) -> int:
    """Give a fact that is a whole number, or 0."""
    value = facts.get(name)
    return value if type(value) is int else 0


def cut(findings: Sequence[str]) -> tuple[str, ...]:
    """Give findings as a result carries them: the first hundred, and how many more."""
    shown = 100
    more = len(findings) - shown
    return tuple(findings) if more <= 0 else (*findings[:shown], f"and {more} more")
