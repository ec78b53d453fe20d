from __future__ import annotations

import dataclasses
import json

import pytest
import rfc8785
from audit_log_builder import PLACE, make_event
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import AuditRefused, ProofRefused
from audit.event import MAX_LEAF_BYTES
from audit.leaf import LEAF_COLUMNS, MAX_DEPTH, MAX_SAFE_INTEGER, Leaf, decode_leaf, draft_leaf

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
NUMBER = (
    st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
    | st.floats(-(2.0**53) + 2, 2.0**53 - 2, allow_nan=False)
    | st.floats(-1, 1)
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.from_regex(r"[ -~]{0,8}", fullmatch=True), inner),
    max_leaves=12,
)
FACTS = st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), JSON, max_size=6)
LEAF = draft_leaf(make_event(1), PLACE).encode(7, 5)


@given(FACTS, TEXT, st.integers(0, MAX_SAFE_INTEGER), st.integers(0, 2**63 - 1))
@settings(max_examples=100, deadline=None)
def test_the_bytes_are_the_canonical_form_of_rfc_8785(facts: dict, text: str, index: int, mono: int) -> None:
    """Two halves around two numbers give what the RFC's own encoder gives for the whole."""
    event = dataclasses.replace(make_event(1, subject=text), facts=facts, monotonic_ns=mono, tenant=text)
    whole = {
        "v": 1,
        "index": index,
        "head": index // 2,
        "kind": event.kind,
        "ts_us": event.ts_us,
        "mono_ns": str(mono),
        "boot_id": PLACE.boot_id,
        "node_id": PLACE.node_id,
        "epoch": PLACE.epoch,
        "actor": event.actor,
        "role": event.role,
        "tenant": text,
        "subject": text,
        "facts": facts,
    }
    leaf_bytes = draft_leaf(event, PLACE).encode(index, index // 2)
    assert leaf_bytes == rfc8785.dumps(whole)
    leaf = decode_leaf(leaf_bytes)
    assert (leaf.index, leaf.head, leaf.place) == (index, index // 2, PLACE)
    assert draft_leaf(leaf.event, PLACE).encode(index, index // 2) == leaf_bytes


def test_the_columns_of_a_decoded_leaf_are_those_of_its_draft() -> None:
    """What is stored beside the bytes follows from the bytes, and covers every column."""
    event = make_event(3, label="internal", outcome=7)
    draft = draft_leaf(event, PLACE)
    columns = decode_leaf(draft.encode(4, 2)).columns()
    assert columns == {"idx": 4, "head": 2, **draft.columns}
    assert set(columns) | {"leaf_bytes", "leaf_hash"} == set(LEAF_COLUMNS)
    assert (columns["label"], columns["outcome"], columns["route"]) == ("internal", None, "/v1/chat/completions")


def test_facts_are_copied_when_the_event_is_accepted() -> None:
    """A list that the caller changes later does not change the record."""
    names = ["a"]
    draft = draft_leaf(make_event(1, policy_ids=names), PLACE)
    names.append("b")
    assert decode_leaf(draft.encode(0, 0)).event.facts["policy_ids"] == ["a"]


def nested(depth: int) -> object:
    """Return lists within lists."""
    return [] if depth == 1 else [nested(depth - 1)]


@pytest.mark.parametrize(
    "facts",
    [
        {"x": float("nan")},
        {"x": float("inf")},
        {"x": 2**53},
        {"x": -(2**53)},
        {"x": 1e20},
        {"x": b"bytes"},
        {"x": {1: 2}},
        {"x": {"é": 2}},
        {"x": "\ud800"},
        {"x": {1, 2}},
        {"x": nested(MAX_DEPTH + 1)},
        {"X": 1},
        {"": 1},
        {"1x": 1},
        {"x-y": 1},
    ],
)
def test_facts_without_an_exact_form_are_refused(facts: dict) -> None:
    """Refused by the caller's thread, before anything is queued."""
    with pytest.raises(AuditRefused):
        draft_leaf(dataclasses.replace(make_event(1), facts=facts), PLACE)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "admitted"},
        {"kind": "Request:admitted"},
        {"kind": "request:admitted "},
        {"kind": "request:admitted\n"},
        {"kind": "a:b:c"},
        {"kind": 5},
        {"ts_us": -1},
        {"ts_us": 2**53},
        {"ts_us": 1.5},
        {"ts_us": True},
        {"monotonic_ns": -1},
        {"monotonic_ns": 2**63},
        {"actor": ""},
        {"tenant": None},
        {"subject": "\udfff"},
    ],
)
def test_an_event_that_breaks_a_rule_is_refused(change: dict) -> None:
    """Each rule has its refusal."""
    with pytest.raises(AuditRefused):
        draft_leaf(dataclasses.replace(make_event(1), **change), PLACE)


def test_the_largest_leaf_fits_and_one_byte_more_does_not() -> None:
    """The limit is that of an entry bundle's length field, at any index."""
    empty = len(draft_leaf(make_event(1, text=""), PLACE).encode(MAX_SAFE_INTEGER, MAX_SAFE_INTEGER))
    draft_leaf(make_event(1, text="x" * (MAX_LEAF_BYTES - empty)), PLACE)
    with pytest.raises(AuditRefused, match="65535"):
        draft_leaf(make_event(1, text="x" * (MAX_LEAF_BYTES - empty + 1)), PLACE)


def test_an_uptime_of_a_year_keeps_its_nanoseconds() -> None:
    """A monotonic clock outgrows the exact numbers of JSON after 104 days."""
    nanoseconds = 365 * 86_400 * 10**9 + 1
    event = dataclasses.replace(make_event(1), monotonic_ns=nanoseconds)
    assert decode_leaf(draft_leaf(event, PLACE).encode(0, 0)).event.monotonic_ns == nanoseconds


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{"actor"', b'{ "actor"'),
        (b'"v":1}', b'"v":1,"v":1}'),
        (b'"v":1}', b'"v":2}'),
        (b'"v":1}', b'"v":1,"w":1}'),
        (b'"v":1}', b'"v":1.0}'),
        (b',"v":1}', b"}"),
        (b'"index":7', b'"index":7.0'),
        (b'"index":7', b'"index":true'),
        (b'"index":7', b'"index":-7'),
        (b'"index":7', b'"index":NaN'),
        (b'"index":7', b'"index":"7"'),
        (b'"mono_ns":"', b'"mono_ns":"0'),
        (b'"facts":{', b'"facts":{"seed":1,'),
        (b'"role":"developer"', b'"role":"d\\u0065veloper"'),
        (b'"role":"developer"', b'"role":null'),
        (b'"role":"developer"', b'"role":"\xff"'),
    ],
)
def test_any_other_form_of_a_leaf_is_refused(old: bytes, new: bytes) -> None:
    """Spaces, order, escapes, duplicates, types: one value has one byte form."""
    assert old in LEAF
    with pytest.raises(ProofRefused):
        decode_leaf(LEAF.replace(old, new))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"[" * 60_000, b"{" * 66_000, b'{"v":1}', LEAF + b" "])
def test_hostile_bytes_are_refused_and_never_crash(data: bytes) -> None:
    """Too deep, too long, too short: a refusal each."""
    with pytest.raises(ProofRefused):
        decode_leaf(data)


@given(st.integers(0, 10_000), st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_a_flipped_bit_gives_another_leaf_or_none(position: int, bit: int) -> None:
    """Two different byte strings never mean the same leaf."""
    flipped = bytearray(LEAF)
    flipped[position % len(flipped)] ^= 1 << bit
    try:
        leaf: Leaf = decode_leaf(bytes(flipped))
    except ProofRefused:
        return
    assert leaf != decode_leaf(LEAF)


def test_a_leaf_is_plain_json_to_everyone_else() -> None:
    """Any JSON reader can read it."""
    assert json.loads(LEAF)["subject"] == "req-1"
