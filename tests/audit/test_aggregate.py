"""Counts against a plain count, quantiles against a sorted list, and memory that ends."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter

import pytest
from audit_log_builder import START_US, make_event
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import aggregate as module
from audit.aggregate import Numbers, aggregate
from audit.entry import Entry
from audit.errors import AuditRefused
from audit.leaf import Leaf
from audit.leaf import Place as LeafPlace

NUMBERS = Numbers(kinds={"request:completed"}, totals=("tokens",), spreads=("ms",))
PLACE = LeafPlace("node-1", "boot-1", 1)


def entry(number, kind="request:completed", *, minute=0, actor="ada", role="developer", **facts):
    """One decoded leaf; its bytes do not matter here."""
    event = dataclasses.replace(
        make_event(number, kind), ts_us=START_US + minute * 60_000_000, actor=actor, role=role, facts=facts
    )
    return Entry(number, Leaf(number, number, PLACE, event), b"", b"")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["request:completed", "request:admitted"]),
            st.sampled_from(["ada", "bob"]),
            st.none() | st.sampled_from(["0", "3"]),
            st.integers(0, 200),
            st.integers(0, 5_000),
        ),
        max_size=60,
    )
)
def test_counts_totals_and_quantiles_are_those_of_a_plain_reading(rows):
    """Two fields and the hour; a fact that is missing is a group of its own; numbers of one kind only."""
    entries = [
        entry(number, kind, minute=minute, actor=actor, tokens=3, ms=ms, **({} if label is None else {"label": label}))
        for number, (kind, actor, label, minute, ms) in enumerate(rows)
    ]
    found = aggregate(iter(entries), ("actor", "label", "hour"), NUMBERS)
    first_hour = dt.datetime(2025, 11, 24, 6, tzinfo=dt.UTC)
    counts = Counter(
        (actor, label, (first_hour + dt.timedelta(minutes=minute)).strftime("%Y-%m-%dT%H"))
        for _, actor, label, minute, _ in rows
    )
    assert found.num_entries == len(rows)
    assert {group.key: group.count for group in found.groups} == counts
    by_actor = aggregate(iter(entries), ("actor",), NUMBERS)
    for group in by_actor.groups:
        values = sorted(ms for kind, actor, _, _, ms in rows if (kind, actor) == ("request:completed", group.key[0]))
        assert group.totals.get("tokens", 0) == 3 * len(values)
        if not values:
            assert group.quantiles == {}
            continue
        spread = group.quantiles["ms"]
        ranks = [values[-(-len(values) * percent // 100) - 1] for percent in (50, 90, 95, 99)]
        assert [spread.p50, spread.p90, spread.p95, spread.p99] == ranks
        assert (spread.count, spread.minimum, spread.maximum) == (len(values), values[0], values[-1])
        assert spread.digits is None


def test_hours_and_days_are_utc():
    """And a day is one group."""
    entries = [entry(number, minute=30 * number) for number in range(100)]
    assert [group.count for group in aggregate(entries, ("hour",), NUMBERS).groups].count(2) >= 48
    assert sum(group.count for group in aggregate(entries, ("day",), NUMBERS).groups) == 100
    assert aggregate(entries, ("day",), NUMBERS).groups[0].key == ("2025-11-24",)


def test_beyond_the_memory_that_it_may_take_a_quantile_says_how_it_was_rounded(monkeypatch):
    """Three digits first, fewer if need be; counts and totals stay exact."""
    monkeypatch.setattr(module, "MAX_CELLS", 2_000)
    found = aggregate((entry(n, tokens=1, ms=n) for n in range(100_000)), ("kind",), NUMBERS)
    (group,) = found.groups
    spread = group.quantiles["ms"]
    assert (spread.digits, group.count, group.totals, spread.count) == (2, 100_000, {"tokens": 100_000}, 100_000)
    assert 0.9 * 50_000 <= spread.p50 <= 50_000
    assert 0.9 * 99_000 <= spread.p99 <= 99_000


def test_more_groups_than_are_kept_are_refused(monkeypatch):
    """Memory does not grow with what a caller chose to count by."""
    monkeypatch.setattr(module, "MAX_GROUPS", 10)
    with pytest.raises(AuditRefused, match="more than 10 groups"):
        aggregate((entry(n) for n in range(100)), ("subject",), NUMBERS)


@pytest.mark.parametrize(
    "by", [(), ("colour",), ("kind", "kind"), ("day", "hour"), ("kind", "actor", "role"), ("index",), ("time",)]
)
def test_what_cannot_be_counted_by_is_refused(by):
    """Before anything is read."""

    def never():
        raise AssertionError("read")
        yield

    with pytest.raises(AuditRefused):
        aggregate(never(), by, NUMBERS)


def test_numbers_that_are_no_whole_numbers_are_left_out():
    """A fact of another kind adds nothing."""
    entries = [entry(0, tokens=True, ms=None), entry(1, tokens="7", ms=-1), entry(2, tokens=2, ms=1.5)]
    (group,) = aggregate(entries, ("kind",), NUMBERS).groups
    assert (group.totals, group.quantiles) == ({"tokens": 2}, {})
