"""One alternative, walked in the order of the log: find candidates by the sparsest index, look at those alone.

Every stream of the alternative is asked where it goes on; the walk jumps to the farthest answer, because no leaf
before it can be in all of them, and takes the stream whose next entries reach farthest as the one to follow.  What
this costs is counted against the walk's budget; when it is spent, the walk says up to
where it has looked.  It looks at something before that in any case, so that a cursor always gets on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from audit.errors import AuditCorrupt
from audit.search.normal_form import Alternative, Stretch
from audit.search.streams import Stream, meant_of, streams_of

MAX_CHUNK_LEN = 1_024
_ALL = Alternative()
SEEK_COST = 8
"""What one seek counts, in candidates,"""
ENTRIES_PER_CANDIDATE = 4
"""and how many entries of an index that it reads count as one."""


@dataclass(slots=True)
class Budget:
    """How much a walk may still look at; owned by the thread that makes the page."""

    left: int

    def spend(self, count: int) -> None:
        """Count it."""
        self.left -= count


class Walk:
    """The leaves of one alternative, one after the other.

    A place is an index, or its negative where the walk goes from the newest: places grow as the walk goes on.
    """

    def __init__(
        self,
        connection: Connection,
        alternative: Alternative,
        stretches: Sequence[Stretch],
        budget: Budget,
        *,
        chunk_len: int,
        newest: bool,
    ) -> None:
        self._connection = connection
        self._streams, self._rest = streams_of(alternative)
        self._budget = budget
        self._chunk_len = chunk_len
        self._newest = newest
        self._stretches = list(stretches[::-1] if newest else stretches)
        self._given = self._indexes()
        self.frontier: int | None = None
        """First place that was not looked at, once the budget was spent before the end."""

    def next(self) -> int | None:
        """Return the next index; None at the end, or when the walk is stalled."""
        return next(self._given, None)

    def _indexes(self) -> Iterator[int]:
        for stretch in self._stretches:
            rest: Stretch | None = stretch
            while rest is not None and rest[0] < rest[1]:
                if self._budget.left <= 0:
                    self.frontier = 1 - rest[1] if self._newest else rest[0]
                    return
                candidates, rest = self._step(rest)
                yield from self._meant(candidates)

    def _meant(self, candidates: list[int] | range) -> list[int] | range:
        if not candidates or (self._streams and self._rest == _ALL):
            return candidates
        self._budget.spend(len(candidates))
        meant = meant_of(self._connection, candidates, self._rest)
        if self._rest == _ALL and len(meant) < len(candidates):
            missing = next(index for index in candidates if index not in set(meant))
            raise AuditCorrupt(missing, "the leaf is missing")
        return meant

    def _step(self, stretch: Stretch) -> tuple[list[int] | range, Stretch | None]:
        """Return candidates from the beginning of the stretch, and what is left of it; None: nothing more is there."""
        count = self._chunk_len
        self._chunk_len = min(2 * count, MAX_CHUNK_LEN)
        if not self._streams:
            return self._run(stretch, count)
        chunks = [self._seek(stream, stretch, count) for stream in self._streams]
        if not all(chunks):
            return [], None
        farthest = max if not self._newest else min
        first = farthest(chunk[0] for chunk in chunks)
        if any(self._is_before(chunk[-1], first) for chunk in chunks):
            return [], self._from(stretch, first)
        ends = [chunk[-1] if len(chunk) == count else None for chunk in chunks]  # None: the stream ends with it
        followed = _sparsest(ends, newest=self._newest)
        candidates = [index for index in chunks[followed] if not self._is_before(index, first)]
        for place, stream in enumerate(self._streams):
            if place != followed:
                candidates = self._in_both(candidates, stream, chunks[place], ends[place])
        return candidates, None if None in ends else self._after(stretch, chunks[followed][-1])

    def _in_both(self, candidates: list[int], stream: Stream, chunk: list[int], end: int | None) -> list[int]:
        """Return the candidates that a stream has: by its chunk up to where that ends, by its index beyond."""
        members = set(chunk)
        known = [index for index in candidates if index in members]
        beyond = [] if end is None else [index for index in candidates if self._is_before(end, index)]
        if beyond:
            self._budget.spend(len(beyond))
            known += stream.among(self._connection, beyond)
        return known

    def _run(self, stretch: Stretch, count: int) -> tuple[range, Stretch]:
        low, high = stretch
        if self._newest:
            cut = max(low, high - count)
            return range(high - 1, cut - 1, -1), (low, cut)
        cut = min(high, low + count)
        return range(low, cut), (cut, high)

    def _seek(self, stream: Stream, stretch: Stretch, count: int) -> list[int]:
        found = stream.seek(self._connection, stretch, count, newest=self._newest)
        self._budget.spend(SEEK_COST * len(stream.choices) + len(found) // ENTRIES_PER_CANDIDATE)
        return found

    def _is_before(self, one: int, other: int) -> bool:
        return one > other if self._newest else one < other

    def _from(self, stretch: Stretch, index: int) -> Stretch:
        return (stretch[0], index + 1) if self._newest else (index, stretch[1])

    def _after(self, stretch: Stretch, index: int) -> Stretch:
        return (stretch[0], index) if self._newest else (index + 1, stretch[1])


def _sparsest(ends: Sequence[int | None], *, newest: bool) -> int:
    """Return the stream that reaches farthest with as many entries; one that ends reaches beyond all."""
    for place, end in enumerate(ends):
        if end is None:
            return place
    known = [end for end in ends if end is not None]
    return known.index(min(known) if newest else max(known))
