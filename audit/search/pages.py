"""A page of what an expression means: alternatives walked side by side, merged in the order of the log.

Invariants: each leaf once, in order; a page looks at a bounded number of candidates (`MAX_EXAMINED`), and where that
ends the search early the cursor says so: a page may be short, or empty, and still not be the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from audit.search.candidates import Budget, Walk
from audit.search.expression import Expression
from audit.search.normal_form import WHOLE, Alternative, Stretch, alternatives
from audit.search.streams import grouped_by_index, with_kinds
from audit.search.time_map import TimeMap

MAX_EXAMINED = 12_288
"""Candidates that one page looks at, at most; a few more where a chunk was begun."""
_LEAST_CHUNK_LEN, _FIRST_CHUNK_LEN = 16, 256


@dataclass(frozen=True, slots=True)
class Found:
    """Indexes in order, and where to go on."""

    indexes: tuple[int, ...]
    next_after: int | None
    """Pass as `after` to go on; None when there is nothing more."""


def find_page(
    connection: Connection,
    time_map: TimeMap,
    expression: Expression,
    size: int,
    *,
    after: int | None,
    limit: int,
    newest: bool,
) -> Found:
    """Find the next `limit` leaves below `size`.

    Raises:
        FilterRefused: the expression has too many alternatives.
    """
    bounds = _remaining(size, after, newest=newest)
    splits = [split for one in grouped_by_index(alternatives(expression)) for split in with_kinds(connection, one)]
    budgets = [Budget(max(MAX_EXAMINED // len(splits), 1)) for _ in splits]
    walks = [
        Walk(
            connection,
            split,
            _stretches(connection, time_map, split, bounds, size),
            budget,
            chunk_len=max(_LEAST_CHUNK_LEN, min(limit + 1, _FIRST_CHUNK_LEN) // len(splits)),
            newest=newest,
        )
        for split, budget in zip(splits, budgets, strict=True)
    ]
    places, next_after = _merge(walks, limit, sign=-1 if newest else 1)
    return Found(tuple(places), next_after)


def _merge(walks: Sequence[Walk], limit: int, *, sign: int) -> tuple[list[int], int | None]:
    """Take the nearest of all walks, again and again, and stop where one of them did not look any further."""
    heads = {walk: sign * index for walk in walks if (index := walk.next()) is not None}
    found: list[int] = []
    while True:
        nearest = min(heads.values(), default=None)
        frontier = min((walk.frontier for walk in walks if walk.frontier is not None), default=None)
        if frontier is not None and (nearest is None or frontier <= nearest):
            return found, sign * (frontier - 1)
        if nearest is None:
            return found, None
        if len(found) == limit:
            return found, found[-1]
        found.append(sign * nearest)
        for walk in [walk for walk, place in heads.items() if place == nearest]:
            following = walk.next()
            if following is None:
                del heads[walk]
            else:
                heads[walk] = sign * following


def _remaining(size: int, after: int | None, *, newest: bool) -> Stretch:
    if after is None:
        return 0, size
    return (0, min(after, size)) if newest else (after + 1, size)


def _stretches(
    connection: Connection, time_map: TimeMap, alternative: Alternative, bounds: Stretch, size: int
) -> tuple[Stretch, ...]:
    low, high = max(bounds[0], alternative.index[0]), min(bounds[1], alternative.index[1])
    stretches: tuple[Stretch, ...] = ((low, high),)
    if alternative.time != WHOLE:
        possible = time_map.stretches(connection, size, alternative.time)
        stretches = tuple((max(low, one[0]), min(high, one[1])) for one in possible)
    return tuple(one for one in stretches if one[0] < one[1])
