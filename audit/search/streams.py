"""Ordered seeks: the leaves that have one value of one indexed column, in the order of the log, either way.

A seek reads the index alone.  SQLite keeps the rowid, which is the leaf's index, behind the columns of every index;
on PostgreSQL the indexes end in `idx`.  No statement here can be answered by reading the table from end to end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import eq
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, false, func, or_, select, tuple_

from audit.schema import leaf_policy_table, leaf_table
from audit.search.fields import RANGE_END
from audit.search.normal_form import Alternative, Stretch, grouped

SEEKABLE = frozenset({"actor", "decision", "kind", "label", "model_root", "outcome", "policy", "route", "tenant"})
"""Fields with an index of their own, `policy` in a table of its own; `subject` has one together with `kind`."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Leaves that have one of these choices, by one index."""

    names: tuple[str, ...]
    """Columns, as the index has them."""
    choices: tuple[tuple[str, ...], ...]
    """Values of those columns; the walks of all choices together are one walk."""

    def seek(self, connection: Connection, stretch: Stretch, count: int, *, newest: bool) -> list[int]:
        """Return at most `count` indexes of the stretch, from its beginning, or from its end backwards."""
        found = [self._seek_one(connection, choice, stretch, count, newest=newest) for choice in self.choices]
        if len(found) == 1:
            return found[0]
        return sorted(set(chain.from_iterable(found)), reverse=newest)[:count]

    def _seek_one(
        self, connection: Connection, values: Sequence[str], stretch: Stretch, count: int, *, newest: bool
    ) -> list[int]:
        idx, columns = self._place()
        if connection.dialect.name == "postgresql":
            # Said so that only this index has the order that is asked for: with `column = value` the planner may count
            # on finding it soon in the order of the log, and read the whole table where it is rare.
            place = tuple_(*columns, idx)
            query = select(idx).where(place >= tuple_(*values, stretch[0]), place < tuple_(*values, stretch[1]))
            query = query.where(*(column.is_not(None) for column in columns))
            order: list[ColumnElement[Any]] = [*columns, idx]
        else:
            query = select(idx).where(*map(eq, columns, values), idx >= stretch[0], idx < stretch[1])
            order = [idx]
        query = query.order_by(*(column.desc() if newest else column for column in order)).limit(count)
        return list(connection.execute(query).scalars())

    def among(self, connection: Connection, indexes: Sequence[int]) -> list[int]:
        """Return those of the indexes that are in the stream, in the order given."""
        idx, columns = self._place()
        chosen = or_(*(and_(*map(eq, columns, values)) for values in self.choices))
        found = set(connection.execute(select(idx).where(chosen, idx.in_(indexes))).scalars())
        return [index for index in indexes if index in found]

    def _place(self) -> tuple[ColumnElement[int], list[ColumnElement[str]]]:
        """Return the index column of the stream's table, and the columns that choose the stream in it."""
        if self.names == ("policy",):
            return leaf_policy_table.c.idx, [leaf_policy_table.c.policy_id]
        return leaf_table.c.idx, [leaf_table.c[name] for name in self.names]


def streams_of(alternative: Alternative) -> tuple[tuple[Stream, ...], Alternative]:
    """Return the ordered walks that each have all the leaves of an alternative, and what only a leaf's row can answer.

    An alternative that names a subject must name a kind as well: `with_kinds` sees to it.
    """
    values = dict(alternative.equal)
    streams = [Stream((name,), ((value,),)) for name, value in alternative.equal if name in SEEKABLE]
    if "subject" in values:
        streams = [one for one in streams if one.names != ("kind",)]
        streams.insert(0, Stream(("subject", "kind"), ((values["subject"], values["kind"]),)))
    streams += [Stream((name,), tuple((value,) for value in among)) for name, among in alternative.among]
    rest = tuple(pair for pair in alternative.equal if pair[0] not in SEEKABLE and pair[0] != "subject")
    return tuple(streams), Alternative(rest, alternative.differs, alternative.time)


def grouped_by_index(alternatives: Iterable[Alternative]) -> tuple[Alternative, ...]:
    """Group what can be; an alternative that names a subject stays as it is, since its index goes on with the kind."""
    kept: list[Alternative] = []
    free: list[Alternative] = []
    for one in alternatives:
        (kept if any(name == "subject" for name, _ in one.equal) else free).append(one)
    return (*kept, *grouped(free, sorted(SEEKABLE)))


def with_kinds(connection: Connection, alternative: Alternative) -> tuple[Alternative, ...]:
    """Split an alternative that names a subject into one for each kind that this subject has.

    The index of subjects goes on with the kind, so that only a subject and a kind together are in the log's order.
    """
    values = dict(alternative.equal)
    if "subject" not in values or "kind" in values:
        return (alternative,)
    found: list[Alternative] = []
    after = _next_kind(connection, values["subject"], "")
    while after is not None:
        if ("kind", after) not in alternative.differs:
            equal = tuple(sorted((*alternative.equal, ("kind", after))))
            differs = tuple(pair for pair in alternative.differs if pair[0] != "kind")
            found.append(Alternative(equal, differs, alternative.time, alternative.index))
        after = _next_kind(connection, values["subject"], after)
    return tuple(found)


def _next_kind(connection: Connection, wanted: str, after: str) -> str | None:
    """Return the next kind that a subject has; one seek."""
    subject, kind = leaf_table.c.subject, leaf_table.c.kind
    if connection.dialect.name == "postgresql":  # as in `Stream.seek`
        query = select(subject, kind).where(tuple_(subject, kind) > tuple_(wanted, after)).order_by(subject, kind)
    else:
        query = select(subject, kind).where(subject == wanted, kind > after).order_by(kind)
    row = connection.execute(query.limit(1)).one_or_none()
    return row.kind if row is not None and row.subject == wanted else None


def meant_of(connection: Connection, candidates: list[int] | range, alternative: Alternative) -> list[int]:
    """Return those of the candidates, which the caller names in order, that are meant, in that order."""
    idx = leaf_table.c.idx
    if isinstance(candidates, range):
        ends = sorted((candidates[0], candidates[-1]))
        among = and_(idx >= ends[0], idx <= ends[1])
    else:
        among = idx.in_(candidates)
    found = set(connection.execute(select(idx).where(among, *_conditions(alternative))).scalars())
    return [index for index in candidates if index in found]


def _conditions(alternative: Alternative) -> Iterable[ColumnElement[bool]]:
    """Every condition in a form that no index answers: the candidates' own places are the way to the rows."""
    for name, value in alternative.equal:
        yield _equal(name, value)
    for name, value in alternative.differs:
        yield ~func.coalesce(_equal(name, value), false())
    if alternative.time[0] > 0:
        yield leaf_table.c.ts_us + 0 >= alternative.time[0]
    if alternative.time[1] < RANGE_END:
        yield leaf_table.c.ts_us + 0 < alternative.time[1]


def _equal(name: str, value: str) -> ColumnElement[bool]:
    if name == "policy":
        here = leaf_policy_table.c.idx == leaf_table.c.idx
        return exists().where(here, leaf_policy_table.c.policy_id == value)
    column = leaf_table.c[name] + ""
    if name != "role" or not value:
        return column == value
    among = "," + column + ","
    return or_(column == value, func.replace(among, f",{value},", "") != among)  # LIKE would ignore case on SQLite
