"""Pages of a search, held against a plain reading of every leaf; their plans; and what happens to hostile filters."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from audit_log_builder import START_US, attacker, build_log, make_event
from hypothesis import given, settings
from hypothesis import strategies as st
from log_places import new_place
from sqlalchemy import event

from audit.errors import AuditCorrupt
from audit.event import Event
from audit.reader import AuditReader
from audit.search import pages
from audit.search.expression import shown_time
from audit.search.parser import parse_filter
from audit.search.time_map import TimeMap

NUM_LEAVES = 120
KINDS = ("request:admitted", "request:completed", "request:denied", "log:read")
ACTORS, TENANTS, SUBJECTS = ("ada", "bob", "o'brien"), ("plant", "lab"), ("req-1", "req-2", "model")
ROLES = ("", "auditor", "auditor,operator", "developer", "audit")
ROUTES, LABELS = ("/v1/chat/completions", "/tokenize", None), ("0", "3", None)
Predicate = Callable[[int, Event], bool]


def story(seed: int) -> list[Event]:
    """Events whose clock is set forwards and backwards, and which lack facts now and then."""
    draw = random.Random(seed)
    ts_us, events = START_US, []
    for number in range(NUM_LEAVES):
        ts_us += draw.choice((0, 1_000_000, 30_000_000, 30_000_000))
        if draw.random() < 0.02:
            ts_us += draw.choice((-3_600_000_000, 3_600_000_000))
        facts = {"route": draw.choice(ROUTES), "label": draw.choice(LABELS), "outcome": draw.choice(("completed", 7))}
        policies = draw.choice(([], ["p-1"], ["p-1", "p-2"], ["p-2", "p-2"], "p-1", [7, "p-1"]))
        events.append(
            dataclasses.replace(
                make_event(number, draw.choice(KINDS), draw.choice(SUBJECTS), decision=draw.choice(("allow", "deny"))),
                ts_us=ts_us,
                actor=draw.choice(ACTORS),
                tenant=draw.choice(TENANTS),
                role=draw.choice(ROLES),
                facts={name: value for name, value in facts.items() if value is not None} | {"policy_ids": policies},
            )
        )
    return events


LogOf = Callable[[int], tuple[AuditReader, list[Event]]]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def log_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogOf]:
    """One log for each seed, in each store; small blocks of time, so that there are many."""
    server = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
    made: dict[int, tuple[AuditReader, list[Event]]] = {}

    def make(seed: int) -> tuple[AuditReader, list[Event]]:
        if seed not in made:
            place, events = new_place(request.param, tmp_path_factory.mktemp("search"), server), story(seed)
            place.fill(events, [NUM_LEAVES])
            made[seed] = (AuditReader(place.reader), events)
            made[seed][0]._time_map = TimeMap(block_len=8)
        return made[seed]

    yield make
    for reader, _ in made.values():
        reader.close()


def _text(name: str, values: tuple[str, ...], read: Callable[[Event], tuple[object, ...]]) -> st.SearchStrategy:
    def negated(value: str) -> tuple[str, Predicate]:
        return f'{name}!="{value}"', lambda _index, one: value not in read(one)

    def equal(value: str) -> tuple[str, Predicate]:
        return f'{name}="{value}"', lambda _index, one: value in read(one)

    def among(chosen: list[str]) -> tuple[str, Predicate]:
        listed = ", ".join(f'"{value}"' for value in chosen)
        return f"{name} in ({listed})", lambda _index, one: bool(set(chosen) & set(read(one)))

    value = st.sampled_from(values)
    return value.map(equal) | value.map(negated) | st.lists(value, min_size=1, max_size=3).map(among)


def _fact(name: str) -> Callable[[Event], tuple[object, ...]]:
    return lambda one: (one.facts.get(name),)


def _policies(one: Event) -> tuple[object, ...]:
    said = one.facts["policy_ids"]
    return tuple(said) if isinstance(said, list) else ()


SIGNS = {
    "=": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


def _ranged(sign: str, place: int, *, is_time: bool) -> tuple[str, Predicate]:
    compare = SIGNS[sign]
    if not is_time:
        return f"index{sign}{place}", lambda index, _one: compare(index, place)
    at_us = START_US + place * 30_000_000
    return f"time{sign}{shown_time(at_us)}", lambda _index, one: compare(one.ts_us, at_us)


COMPARISONS = st.one_of(
    _text("kind", (*KINDS, "no:such"), lambda one: (one.kind,)),
    _text("actor", (*ACTORS, "ADA"), lambda one: (one.actor,)),
    _text("tenant", TENANTS, lambda one: (one.tenant,)),
    _text("subject", (*SUBJECTS, "req"), lambda one: (one.subject,)),
    _text("role", (*ROLES, "operator", "%"), lambda one: (one.role, *one.role.split(","))),
    _text("policy", ("p-1", "p-2", "p-3"), _policies),
    _text("route", ("/v1/chat/completions", "/tokenize", ""), _fact("route")),
    _text("label", ("0", "3"), _fact("label")),
    _text("outcome", ("completed", "7"), _fact("outcome")),
    _text("decision", ("allow",), _fact("decision")),
    st.builds(
        functools.partial(_ranged, is_time=True), st.sampled_from(sorted(SIGNS)), st.integers(-100, NUM_LEAVES + 100)
    ),
    st.builds(functools.partial(_ranged, is_time=False), st.sampled_from(sorted(SIGNS)), st.integers(0, NUM_LEAVES)),
)


def _joined(parts: list[tuple[str, Predicate]], word: str) -> tuple[str, Predicate]:
    join = all if word == "and" else any
    text = f" {word} ".join(f"({one})" for one, _ in parts)
    return text, lambda index, one: join(holds(index, one) for _, holds in parts)


FILTERS = st.recursive(
    COMPARISONS,
    lambda part: (
        st.builds(_joined, st.lists(part, min_size=2, max_size=3), st.sampled_from(["and", "and", "or"]))
        | part.map(lambda one: (f"not ({one[0]})", lambda index, appended: not one[1](index, appended)))
    ),
    max_leaves=5,
)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 5),
    drawn=FILTERS,
    limit=st.sampled_from([1, 2, 7, 50, 1000]),
    newest=st.booleans(),
    max_examined=st.sampled_from([1, 40, 12_288]),
)
def test_the_pages_together_are_what_a_plain_reading_finds(log_of: LogOf, seed, drawn, limit, newest, max_examined):
    """Whatever the log, the filter, the page length, the direction and how soon a page gives up."""
    reader, events = log_of(seed)
    text, holds = drawn
    wanted = [index for index, appended in enumerate(events) if holds(index, appended)]
    found: list[int] = []
    after: int | None = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "MAX_EXAMINED", max_examined)
        while True:
            page = reader.entries(parse_filter(text), after=after, limit=limit, newest=newest)
            assert len(page.entries) <= limit
            found += [entry.index for entry in page.entries]
            if page.next_after is None:
                break
            before, after = after, page.next_after
            assert before is None or (after < before if newest else after > before), "a cursor that does not get on"
    assert found == (wanted[::-1] if newest else wanted), text


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 5), drawn=FILTERS, size=st.integers(0, NUM_LEAVES))
def test_a_walk_at_a_size_is_the_log_as_it_was_then(log_of: LogOf, seed, drawn, size):
    """What came later is not there: a recorded query can be run again and gives the same."""
    reader, events = log_of(seed)
    text, holds = drawn
    wanted = [index for index, appended in enumerate(events[:size]) if holds(index, appended)]
    assert [entry.index for entry in reader.walk(parse_filter(text), size=size)] == wanted


PLAIN_PLANS = ("enable_seqscan", "enable_bitmapscan", "enable_sort", "enable_incremental_sort")
"""Of PostgreSQL: with these off it still scans or sorts where there is no index to walk, and only there.  On a log of
120 entries it would otherwise read the whole table for anything, and rightly."""


@contextmanager
def plans_of(reader: AuditReader) -> Iterator[list[tuple[str, str]]]:
    """Collect `(statement, plan line)` of every statement that is run."""
    plans: list[tuple[str, str]] = []

    def explain(connection: object, _: object, statement: str, parameters: tuple, *__: object) -> None:
        if not statement.startswith("SELECT") or "EXPLAIN" in statement:
            return
        raw = connection.connection.dbapi_connection
        if connection.dialect.name == "sqlite":
            plans.extend((statement, row[3]) for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))
            return
        for setting in PLAIN_PLANS:
            raw.execute(f"SET LOCAL {setting} = off")
        plans.extend((statement, row[0]) for row in raw.execute(f"EXPLAIN (COSTS OFF) {statement}", parameters))

    event.listen(reader._engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        event.remove(reader._engine, "before_cursor_execute", explain)


@settings(max_examples=150, deadline=None)
@given(drawn=FILTERS, newest=st.booleans(), after=st.none() | st.integers(0, NUM_LEAVES))
def test_no_filter_scans_or_sorts(log_of: LogOf, drawn, newest, after):
    """Every statement of every page is a seek in an index or by the leaf's own index, and needs no sorting."""
    reader, _ = log_of(0)
    with plans_of(reader) as plans:
        reader.entries(parse_filter(drawn[0]), after=after, limit=20, newest=newest)
    for statement, line in plans:
        if "FROM leaf" in statement:
            assert not any(word in line for word in ("SCAN", "Seq Scan", "TEMP B-TREE", "Sort")), (drawn[0], line)


@pytest.mark.parametrize(
    "name", ["kind", "actor", "tenant", "route", "model_root", "decision", "outcome", "label", "policy"]
)
def test_a_single_condition_reads_its_index_alone(log_of: LogOf, name):
    """Until the page's own leaves are fetched, the table is not touched."""
    reader, _ = log_of(0)
    with plans_of(reader) as plans:
        reader.entries(parse_filter(f"{name}=nothing:here"), limit=5)
    lines = [line.strip() for statement, line in plans if " IN (" not in statement and "checkpoint" not in statement]
    index = "leaf_policy_policy_id" if name == "policy" else f"leaf_{name}"
    searches = [line for line in lines if f"INDEX {index} " in line or f"Index Only Scan using {index} " in line]
    assert len(searches) == 1, lines
    assert "COVERING" in searches[0] or "Only" in searches[0]


ATTACKS = {
    "a quote that ends the literal": "' OR '1'='1",
    "a statement behind the first": "x'; DROP TABLE leaf; --",
    "a union": "x' UNION SELECT note FROM checkpoint --",
    "a comment": "x'/*",
    "a bind name": ":after",
    "a positional bind": "?1",
    "a format": "%s%(x)s{0}",
    "a LIKE wildcard": "%",
    "a backslash": "\\' OR 1=1 --",
    "a quoted identifier": '" OR "" = "',
    "a line break": "x\n; ATTACH DATABASE '/tmp/x' AS y; --",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
@pytest.mark.parametrize("name", ["actor", "kind", "subject", "role", "route"])
def test_a_value_stays_a_value(log_of: LogOf, name, attack):
    """It finds what equals it, which is nothing, and everything is as it was; its negation finds everything."""
    reader, _ = log_of(0)
    escaped = attack.replace("\\", "\\\\").replace('"', '\\"')
    assert reader.entries(parse_filter(f'{name}="{escaped}"')).entries == ()
    assert len(list(reader.walk(parse_filter(f'{name}!="{escaped}"')))) == NUM_LEAVES


@pytest.mark.parametrize(
    ("tamper", "text"),
    [
        ("UPDATE leaf SET actor = 'ada' WHERE actor = 'bob'", "actor=ada"),
        ("UPDATE leaf SET ts_us = ts_us + 9000000000 WHERE idx = 3", f"time>={shown_time(START_US + 8_900_000_000)}"),
        ("UPDATE leaf SET label = NULL WHERE label = '3'", "label!=3"),
        ("UPDATE leaf SET idx = idx + 1000 WHERE idx = 5", ""),
    ],
)
def test_an_altered_column_is_corruption_and_no_result(tmp_path, tamper, text):
    """What columns claim is believed only where the leaf's bytes say the same."""
    build_log(tmp_path / "audit.db", story(1), [NUM_LEAVES])
    with attacker(tmp_path / "audit.db") as raw:
        raw.execute(tamper)
    with AuditReader(tmp_path / "audit.db") as reader, pytest.raises(AuditCorrupt):
        list(reader.walk(parse_filter(text)))


def test_time_is_right_where_the_clock_was_set_back(tmp_path):
    """An hour that the clock went through twice has both of its leaves, and only those, in the order of the log."""
    minutes = [*range(120), *range(60, 180)]  # at index 120 the clock goes back by an hour
    events = [
        dataclasses.replace(make_event(place), ts_us=START_US + minute * 60_000_000)
        for place, minute in enumerate(minutes)
    ]
    build_log(tmp_path / "audit.db", events, [len(events)])
    low, high = (shown_time(START_US + minute * 60_000_000) for minute in (90, 100))
    with AuditReader(tmp_path / "audit.db") as reader:
        reader._time_map = TimeMap(block_len=4)
        found = [entry.index for entry in reader.walk(parse_filter(f"time>={low} and time<{high}"))]
        with reader._engine.begin() as connection:
            time = (START_US + 90 * 60_000_000, START_US + 100 * 60_000_000)
            stretches = reader._time_map.stretches(connection, len(events), time)
    assert found == [*range(90, 100), *range(150, 160)]
    assert stretches == ((88, 100), (148, 160)), "both passages, and no block between them"
