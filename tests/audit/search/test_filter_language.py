"""The language of filters: what it takes, what it means, and which character it points at when it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import FilterRefused
from audit.search.expression import EVERYTHING, And, Equal, Not, Or, Within, all_of, any_of, canonical
from audit.search.fields import RANGE_END, TEXT_FIELDS
from audit.search.moments import moment
from audit.search.normal_form import MAX_ALTERNATIVES, Alternative, alternatives, grouped
from audit.search.parser import MAX_COMPARISONS, MAX_DEPTH, parse_filter
from audit.search.tokens import MAX_FILTER_CHARACTERS

DAY_US = 86_400_000_000
NOVEMBER_US = 1_793_491_200_000_000  # 2026-11-01T00:00:00Z


def test_the_example_of_the_documents_is_understood():
    """Precedence: `and` before `or`, parentheses before both."""
    parsed = parse_filter("kind=request:denied and (actor=ada or actor=bob) and time>=2026-11-01")
    assert parsed == And(
        (
            Equal("kind", "request:denied"),
            Or((Equal("actor", "ada"), Equal("actor", "bob"))),
            Within("time", NOVEMBER_US, RANGE_END),
        )
    )
    assert parse_filter("kind=a:b or kind=c:d and actor=x") == Or(
        (Equal("kind", "a:b"), And((Equal("kind", "c:d"), Equal("actor", "x"))))
    )


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", EVERYTHING),
        ("  \t\n ", EVERYTHING),
        ("actor = ada", Equal("actor", "ada")),
        ("actor!=ada", Not(Equal("actor", "ada"))),
        ('actor="ada \\"the\\" \\\\ countess"', Equal("actor", 'ada "the" \\ countess')),
        ('actor="and"', Equal("actor", "and")),
        ('role=""', Equal("role", "")),
        ("actor in (ada,bob)", Or((Equal("actor", "ada"), Equal("actor", "bob")))),
        ("actor in (ada)", Equal("actor", "ada")),
        ("actor not in (ada, bob)", Not(Or((Equal("actor", "ada"), Equal("actor", "bob"))))),
        ("NOT actor=ada", Not(Equal("actor", "ada"))),
        ("not not actor=ada", Not(Not(Equal("actor", "ada")))),
        ("((actor=ada))", Equal("actor", "ada")),
        ("index=7", Within("index", 7, 8)),
        ("index>=7", Within("index", 7, RANGE_END)),
        ("index>7", Within("index", 8, RANGE_END)),
        ("index<7", Within("index", 0, 7)),
        ("index<=7", Within("index", 0, 8)),
        ("time=2026-11-01", Within("time", NOVEMBER_US, NOVEMBER_US + DAY_US)),
        ("time>2026-11-01", Within("time", NOVEMBER_US + DAY_US, RANGE_END)),
        ("time<=2026-11-01", Within("time", 0, NOVEMBER_US + DAY_US)),
        ("route=/v1/chat/completions", Equal("route", "/v1/chat/completions")),
        ("actor=gr\u00f6\u00dfe", Equal("actor", "gr\u00f6\u00dfe")),
    ],
)
def test_a_filter_means(text, meaning):
    """Each form once."""
    assert parse_filter(text) == meaning


@pytest.mark.parametrize(
    ("text", "at", "what"),
    [
        ("actr=ada", 0, "expected a field"),
        ("actor", 5, "expected =, !=, in"),
        ("actor=", 6, "expected a value"),
        ("actor=and", 6, "expected a value"),
        ("actor=ada bob", 10, "expected `and`, `or` or the end"),
        ("actor=ada and", 13, "expected a field"),
        ("(actor=ada", 10, "expected )"),
        ("actor=ada)", 9, "expected `and`, `or` or the end"),
        ("actor in ada", 9, "expected ("),
        ("actor in ()", 10, "expected a value"),
        ("actor in (ada", 13, "expected )"),
        ("actor not ada", 10, "expected `in`"),
        ('actor="ada', 6, "has no end"),
        ('actor="a\\n"', 6, "has no end"),
        ("actor='ada'", 6, "means nothing here"),
        ("actor>ada", 5, "by = and != only"),
        ("index=x", 6, "whole number"),
        ("index=-1", 6, "whole number"),
        ("index=\u0661", 6, "whole number"),
        (f"index={2**53}", 6, "whole number"),
        ("time>=yesterday", 6, "a time is written as"),
        ("time>=2026-13-01", 6, "month must be"),
        ("time>=2026-02-30", 6, "day"),
        ("time>=2026-02-03T24", 6, "none of 24"),
        ("time>=1969-01-01", 6, "outside"),
        ("time>=2300-01-01", 6, "outside"),
        ("time>=2026-02-03+01:00", 6, "an offset needs an hour"),
        ("actor=a\0b", 6, "which no record can"),
        ("actor=\ud800", 6, "which no record can"),
        ("=ada", 0, "expected a field"),
        ('"actor"=ada', 0, "expected a field"),
        ("x" * (MAX_FILTER_CHARACTERS + 1), MAX_FILTER_CHARACTERS, "at most"),
        ("(" * (MAX_DEPTH + 1) + "actor=a" + ")" * (MAX_DEPTH + 1), MAX_DEPTH + 1, "deep"),
        ("not " * (MAX_DEPTH + 1) + "actor=a", 4 * (MAX_DEPTH + 1), "deep"),
        ("(" * 4_000, MAX_DEPTH + 1, "deep"),
    ],
)
def test_a_refusal_points_at_the_character(text, at, what):
    """Never a traceback, never a guess."""
    with pytest.raises(FilterRefused) as refused:
        parse_filter(text)
    assert refused.value.at == at
    assert what in refused.value.what


@pytest.mark.parametrize(
    ("text", "low", "length"),
    [
        ("2026-11", NOVEMBER_US, 30 * DAY_US),
        ("2026-12", NOVEMBER_US + 30 * DAY_US, 31 * DAY_US),
        ("2026-11-01", NOVEMBER_US, DAY_US),
        ("2026-11-01Z", NOVEMBER_US, DAY_US),
        ("2026-11-01T00", NOVEMBER_US, 3_600_000_000),
        ("2026-11-01T02:00+02:00", NOVEMBER_US, 60_000_000),
        ("2026-10-31T22:30:00-01:30", NOVEMBER_US, 1_000_000),
        ("2026-11-01T00:00:00.25Z", NOVEMBER_US + 250_000, 10_000),
        ("2026-11-01T00:00:00.000001Z", NOVEMBER_US + 1, 1),
    ],
)
def test_a_time_is_the_stretch_that_it_names(text, low, length):
    """A day is a day, a minute a minute; an offset moves it."""
    assert moment(text) == (low, low + length)


VALUES = st.sampled_from(["ada", "bob", "a b", 'a"b', "a\\b", "and", "", "x:y", "=", "gr\u00f6\u00dfe", "2026", ")"])
EXPRESSIONS = st.recursive(
    st.builds(Equal, st.sampled_from(TEXT_FIELDS), VALUES)
    | st.builds(Within, st.sampled_from(["time", "index"]), st.integers(0, 2**40), st.integers(0, RANGE_END)),
    lambda parts: (
        st.builds(Not, parts)
        | st.builds(all_of, st.lists(parts, min_size=1, max_size=3))
        | st.builds(any_of, st.lists(parts, min_size=1, max_size=3))
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS)
def test_the_canonical_text_is_read_back_as_the_same(expression):
    """One meaning, one text, one digest."""
    text = canonical(expression)
    assert canonical(parse_filter(text)) == text


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.text(alphabet='actorindex=!<>()", 01not\\', max_size=60))
def test_any_text_is_a_filter_or_is_refused_at_a_character_of_it(text):
    """Nothing else comes out."""
    at = 0
    try:
        parse_filter(text)
    except FilterRefused as refused:
        at = refused.at
    assert 0 <= at <= len(text)


def test_what_multiplies_out_too_far_is_refused_where_it_begins():
    """Small texts can have many alternatives; 64 are looked for side by side, and no more."""
    eight = "({} in ({}))"
    values = ",".join("abcdefgh")
    fits = f"{eight.format('actor', values)} and {eight.format('tenant', values)}"
    assert len(alternatives(parse_filter(fits))) == MAX_ALTERNATIVES
    too_many = parse_filter(f"kind=a:b or ({fits} and label in (1,2))")
    with pytest.raises(FilterRefused, match="more than 64 alternatives") as refused:
        alternatives(too_many)
    assert refused.value.at == len("kind=a:b or (")


def test_too_many_comparisons_are_refused_at_the_first_that_is_too_many():
    """Counted as they are read, so that nothing large is ever built."""
    text = " or ".join(["actor=a"] * (MAX_COMPARISONS + 1))
    with pytest.raises(FilterRefused, match="more than 64 comparisons") as refused:
        parse_filter(text)
    assert text[refused.value.at :] == "a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind=a:b and kind=c:d", ()),
        ("kind=a:b and kind!=a:b", ()),
        ("index<5 and index>=5", ()),
        ("index<0", ()),
        ("role=a and role=b", (Alternative(equal=(("role", "a"), ("role", "b"))),)),
        ("kind=a:b and kind!=c:d", (Alternative(equal=(("kind", "a:b"),)),)),
        ("kind=a:b and kind=a:b", (Alternative(equal=(("kind", "a:b"),)),)),
        ("index!=5", (Alternative(index=(0, 5)), Alternative(index=(6, RANGE_END)))),
        ("not (index>=2 and index<4)", (Alternative(index=(0, 2)), Alternative(index=(4, RANGE_END)))),
        ("", (Alternative(),)),
    ],
)
def test_alternatives_are_as_few_as_they_can_be(text, expected):
    """What cannot hold is not looked for."""
    assert alternatives(parse_filter(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("actor in (a, b)", (Alternative(among=(("actor", ("a", "b")),)),)),
        (
            "actor in (a, b) and tenant in (c, d)",
            (Alternative(among=(("actor", ("a", "b")), ("tenant", ("c", "d")))),),
        ),
        (
            "actor=a and tenant=c or actor=b and tenant=d",
            (
                Alternative(equal=(("actor", "a"), ("tenant", "c"))),
                Alternative(equal=(("actor", "b"), ("tenant", "d"))),
            ),
        ),
        ("actor=a or tenant=c", (Alternative(equal=(("actor", "a"),)), Alternative(equal=(("tenant", "c"),)))),
        ("policy=a and policy=b", (Alternative(equal=(("policy", "a"), ("policy", "b"))),)),
    ],
)
def test_alternatives_that_differ_in_one_value_are_one_walk(text, expected):
    """And no others: what is joined must mean the same as before."""
    assert set(grouped(alternatives(parse_filter(text)), ("actor", "policy", "tenant"))) == set(expected)
