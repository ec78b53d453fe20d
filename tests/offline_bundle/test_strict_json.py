"""One text, one meaning."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_bundle.errors import DocumentRefused
from offline_bundle.strict_json import MAX_DEPTH, Fields, canonical, parse

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=100)
@given(value=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values, max_size=5))
def test_canonical_text_parses_to_the_value_it_came_from(value: dict) -> None:
    """Writing and reading are inverse, and the text does not depend on the order of keys."""
    raw = canonical(value)
    assert parse(raw, "document", max_bytes=len(raw)) == value
    assert canonical(dict(reversed(value.items()))) == raw


@settings(deadline=None, max_examples=200)
@given(raw=st.binary(max_size=60))
def test_any_bytes_are_an_object_or_a_typed_refusal(raw: bytes) -> None:
    """Nothing leaks from the parser but our own refusal."""
    try:
        value = parse(raw, "document", max_bytes=1000)
    except DocumentRefused:
        return
    assert json.loads(raw) == value


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b'{"a":1.5}',
        b'{"a":1e3}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":9007199254740993}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":"\\ud800"}',
        b'{"\\udfff":1}',
        b'{"a":"\xff"}',
        b'\xef\xbb\xbf{"a":1}',
        b"[1]",
        b'"a"',
        b"",
        b"{" + b'"a":{' * 40 + b"}" * 41,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_what_two_parsers_could_read_differently_is_refused(raw: bytes) -> None:
    """Duplicates, floats, big numbers, bad text and depth never get further."""
    with pytest.raises(DocumentRefused):
        parse(raw, "document", max_bytes=10**6)


def test_more_bytes_than_allowed_are_refused_unread() -> None:
    """The limit counts bytes, not characters."""
    with pytest.raises(DocumentRefused, match="at most 8"):
        parse(b'{"a":"\xc3\xa4"}', "document", max_bytes=8)


def test_depth_limit_is_exact() -> None:
    """The deepest accepted document and the first refused one."""

    def nested(levels: int) -> bytes:
        return b'{"a":' * levels + b"1" + b"}" * levels

    assert parse(nested(MAX_DEPTH - 1), "document", max_bytes=10**6)
    with pytest.raises(DocumentRefused):
        parse(nested(MAX_DEPTH), "document", max_bytes=10**6)


def test_a_field_nobody_takes_is_refused_by_name() -> None:
    """Nothing is accepted and ignored, and the refusal says where it stands."""
    fields = Fields({"known": "x", "inner": {"odd": 1}}, "document")
    assert fields.text("known") == "x"
    inner = fields.fields("inner")
    fields.end()
    with pytest.raises(DocumentRefused, match=r"inner\.odd"):
        inner.end()


def test_true_is_no_integer() -> None:
    """Python counts booleans as integers; a document does not."""
    with pytest.raises(DocumentRefused, match="not an integer"):
        Fields({"n": True}, "document").integer("n")


@pytest.mark.parametrize("method", ["text", "integer", "boolean", "items", "texts", "mapping", "fields"])
def test_a_missing_or_mistyped_field_is_refused_by_name(method: str) -> None:
    """Every accessor refuses absence and a foreign type."""
    with pytest.raises(DocumentRefused, match="f is missing"):
        getattr(Fields({}, "document"), method)("f")
    with pytest.raises(DocumentRefused, match="f is not"):
        getattr(Fields({"f": None}, "document"), method)("f")
