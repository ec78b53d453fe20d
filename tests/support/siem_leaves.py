"""Leaves for the encoders of a copy: any text anywhere, and the attacks by name."""

from __future__ import annotations

import dataclasses

from audit_log_builder import PLACE, make_event
from hypothesis import strategies as st

from audit.event import Event
from audit.leaf import draft_leaf
from audit.merkle import leaf_hash
from audit.siem.exported import ExportedLeaf, LogName

NAME = LogName("cloister.example/log", "0.1.0")
KINDS = ("request:admitted", "request:completed", "request:denied", "auth:refused", "engine:died", "log:read")
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=250)
ATTACKS = {
    "newline": "eve\nCEF:0|Evil|Evil|1|root:granted|pwned|10|suser=root",
    "carriage return": "eve\rsuser=root",
    "pipe": "eve|10|suser=root",
    "equals": "eve suser=root cs1=" + "0" * 64,
    "trailing backslash": "eve\\",
    "escaped newline spelled out": "eve\\nsuser=root",
    "terminal escape": "eve\x1b[2J\x1b[1;1Hok",
    "next line": "eve\x85suser=root",
    "line separator": "eve\u2028suser=root\u2029",
    "right to left override": "eve\u202etoor",
    "octet count": "eve\n57 <104>1 - - - - - -",
    "json": 'eve","leaf_hash":"0","x":"',
    "byte order mark": "\ufeffeve",
    "beyond ascii": "Jürgen 工場 🏭",
    "long": "x" * 500 + "\\" * 500,
}


def exported(event: Event, index: int = 7) -> ExportedLeaf:
    """Give an event its place and hash, as a log would."""
    leaf_bytes = draft_leaf(event, PLACE).encode(index, index)
    return ExportedLeaf.decode(leaf_bytes, leaf_hash(leaf_bytes))


def attacked(text: str, kind: str = "request:denied") -> ExportedLeaf:
    """Give a leaf that says this text wherever a leaf can say any."""
    facts = dict.fromkeys(("route", "source", "code", "outcome", "decision", "model_root", "policy_digest"), text)
    event = dataclasses.replace(make_event(1, kind, text or "s", **facts), actor=text or "a", role=text, tenant=text)
    return exported(event)


@st.composite
def any_leaf(draw: st.DrawFn) -> ExportedLeaf:
    """Draw a leaf whose every text may be anything that a leaf may hold."""
    facts = draw(
        st.dictionaries(
            st.sampled_from(("route", "source", "code", "outcome", "decision", "model_root", "model", "label")),
            TEXT | st.sampled_from(("127.0.0.1", "::1", "completed", "deny")),
        )
    )
    counts = draw(st.dictionaries(st.sampled_from(("prompt_tokens", "completion_tokens")), st.integers(0, 2**40)))
    event = Event(
        kind=draw(st.sampled_from(KINDS)),
        ts_us=draw(st.integers(0, 2**51)),
        monotonic_ns=1,
        actor=draw(TEXT.filter(bool)),
        role=draw(TEXT),
        tenant=draw(TEXT),
        subject=draw(TEXT),
        facts={**facts, **counts},
    )
    return exported(event, draw(st.integers(0, 2**53 - 1)))
