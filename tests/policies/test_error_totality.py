"""DESIGN 7, invariant 8: an error while deciding denies, says so, and never raises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_questions import (
    INFERENCE,
    MODEL,
    action_facts,
    infer_facts,
    subject_facts,
    unproven_engine,
    with_site,
    without_tables,
)

from policies.actions import ACTIONS, MAX_LONG
from policies.bundle import SCHEMA_FILE, load_bundle
from policies.cedar import MAX_ERROR_CHARS, MAX_ERRORS, PolicyEngine
from policies.decision import Allow, Deny, Facts, Obligations, TargetFacts

PERMIT_ALL = '@id("permit-all") permit (principal, action, resource);'


def unlinted_engine(source_bundle, text: str) -> PolicyEngine:
    """An engine over policies that the loader would refuse: the adapter must not rely on the loader alone."""
    form = json.loads(cedarpy.policies_to_json_str(text))
    by_id = {policy["annotations"]["id"]: policy for policy in form["staticPolicies"].values()}
    return PolicyEngine(
        schema=cedarpy.Schema.from_str(source_bundle[SCHEMA_FILE].decode()),
        policies=cedarpy.PolicySet.from_json_str(json.dumps({**form, "staticPolicies": by_id})),
        permits={name: Obligations() for name, policy in by_id.items() if policy["effect"] == "permit"},
        forbids=frozenset(name for name, policy in by_id.items() if policy["effect"] == "forbid"),
        policy_digest="0" * 64,
    )


def assert_policy_error(decision, *said: str) -> None:
    """It denies, gives the client the one stable code, and tells the auditor what happened."""
    assert isinstance(decision, Deny)
    assert decision.reason == "policy_error"
    assert len(decision.policy_digest) == 64
    assert decision.errors
    for words in said:
        assert words in " ".join(decision.errors)


def test_the_unchanged_question_is_allowed(engine, allowed):
    """The premise of every test below: without its one fault the question is allowed."""
    decision = engine.decide(allowed)
    assert isinstance(decision, Allow)
    assert decision.policy_ids == ("developer-infers",)
    assert decision.policy_digest == engine.policy_digest


def test_overflow_in_a_forbid_denies(source_bundle, allowed):
    """Cedar skips a forbid whose arithmetic overflows and allows; we deny."""
    text = PERMIT_ALL + '@id("sum") forbid (principal, action == Action::"infer", resource) when {'
    product = " * ".join(["context.n"] * 4) + " < 0 };"
    engine = unlinted_engine(source_bundle, text + product)
    assert isinstance(engine.decide(allowed), Allow)
    assert_policy_error(engine.decide(infer_facts(context={"n": MAX_LONG})), "overflow")


def test_an_entity_that_is_missing_denies(source_bundle, allowed):
    """A forbid that asks an entity outside the slice errors; Cedar would skip it and allow."""
    text = (
        '@id("site.ghost") forbid (principal, action == Action::"infer", resource) unless { Model::"ghost".approved };'
    )
    assert_policy_error(load_bundle(with_site(without_tables(source_bundle), text)).decide(allowed), "ghost")


def test_an_error_denies_also_when_another_forbid_fired(source_bundle):
    """The forbids that did fire are kept for the auditor beside the error."""
    text = (
        '@id("site.ghost") forbid (principal, action == Action::"infer", resource) unless { Model::"ghost".approved };'
    )
    decision = load_bundle(with_site(without_tables(source_bundle), text)).decide(infer_facts(context={"n": 17}))
    assert_policy_error(decision)
    assert decision.policy_ids == ("choices-within-limit",)


def test_an_unknown_action_denies(engine, allowed):
    """A route that names what nobody defined is refused with its own code."""
    for action in ("", "Infer", "infer ", "mintKey", 'infer"', "\0"):
        decision = engine.decide(replace(allowed, action=action))
        assert isinstance(decision, Deny)
        assert decision.reason == "unknown_action"
        assert decision.errors


@pytest.mark.parametrize("key", sorted(INFERENCE))
def test_a_missing_context_fact_denies(engine, key):
    """No fact has a default."""
    context = {name: value for name, value in INFERENCE.items() if name != key}
    assert_policy_error(engine.decide(replace(infer_facts(), context=context)), f"missing context fact {key}")


@pytest.mark.parametrize("key", sorted(MODEL))
def test_a_missing_attribute_denies(engine, key):
    """A model without its approval, root, label or tenants is not asked about."""
    target = TargetFacts("Model", "starter", {name: value for name, value in MODEL.items() if name != key})
    assert_policy_error(engine.decide(replace(infer_facts(), target=target)), f"missing target attribute {key}")


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_an_unknown_fact_denies(engine, action):
    """A fact that the action does not take is refused, not ignored."""
    facts = action_facts(action)
    assert_policy_error(engine.decide(replace(facts, context={**facts.context, "extra": True})), "unknown context fact")
    target = TargetFacts(facts.target.kind, facts.target.id, {**facts.target.attributes, "extra": True})
    assert_policy_error(engine.decide(replace(facts, target=target)), "unknown target attribute")


BAD_CONTEXT = [
    *(("label", value) for value in (-1, 5, True, 1.0, "1", None)),
    *(("n", value) for value in (-1, MAX_LONG + 1, 2**63, 2**64, True, 1.5, float("nan"))),
    *(("max_tokens", value) for value in (-1, MAX_LONG + 1, None)),
    *(("minute_of_day", value) for value in (-1, 1440)),
    *(("weekday", value) for value in (-1, 7)),
    *(("stream", value) for value in (0, 1, "true", None)),
    *(("source", value) for value in ("", "10.0.0.0/8", "localhost", "127.1", "1.2.3.4 ", 2130706433, None, "\ud800")),
]


@pytest.mark.parametrize(("key", "value"), BAD_CONTEXT, ids=[f"{key}={value!a}" for key, value in BAD_CONTEXT])
def test_a_context_fact_of_the_wrong_type_or_range_denies(engine, key, value):
    """Cedar's own answers to these differ; ours is one."""
    assert_policy_error(engine.decide(infer_facts(context={key: value})), key)


BAD_SUBJECTS = [
    {"id": ""},
    {"id": None},
    {"id": "x" * 513},
    {"id": "\ud800"},
    {"kind": "Model"},
    {"kind": None},
    {"tenant": ""},
    {"tenant": 7},
    {"roles": ["developer"]},
    {"roles": "developer"},
    {"roles": ("developer", "admin")},
    {"roles": ("",)},
    {"roles": None},
    {"clearance": -1},
    {"clearance": 5},
    {"clearance": True},
    {"clearance": "2"},
]


@pytest.mark.parametrize("change", BAD_SUBJECTS, ids=ascii)
def test_a_subject_that_cannot_be_denies(engine, change):
    """An unknown role denies everything: it is never the lesser set of roles."""
    assert_policy_error(engine.decide(infer_facts(subject=change)))


BAD_MODELS = [
    {"approved": 1},
    {"approved": "true"},
    {"max_label": 5},
    {"max_label": True},
    {"root": ""},
    {"tenants": "plant"},
    {"tenants": ["plant"]},
    {"tenants": (None,)},
    {"tenants": ("plant",) * 1025},
]


@pytest.mark.parametrize("change", BAD_MODELS, ids=[ascii(change)[:40] for change in BAD_MODELS])
def test_a_model_that_cannot_be_denies(engine, change):
    """A string is not a tuple of its letters, and 1 is not true."""
    assert_policy_error(engine.decide(infer_facts(model=change)))


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_the_wrong_kind_of_target_denies(engine, action):
    """An action is done to what the table says, and to nothing else."""
    facts = action_facts(action)
    for kind in {"Model", "AuditLog", "Appliance", "User", ""} - {facts.target.kind}:
        attributes = MODEL if kind == "Model" else {}
        assert_policy_error(engine.decide(replace(facts, target=TargetFacts(kind, "x", attributes))))


SHALLOW = """
import json, threading
from policy_questions import infer_facts
from policies.bundle import load_bundle, read_source_bundle

engine = load_bundle(read_source_bundle())
questions = [infer_facts(), infer_facts(context={"label": 4}), infer_facts(subject={"roles": ("auditor",)})]
told = {}
for kib in (64, 96, 128, 192, 256, 1024):  # ascending: a larger stack of a finished thread would be used again
    threading.stack_size(kib * 1024)
    answers = []
    thread = threading.Thread(target=lambda: answers.extend(map(engine.decide, questions)))
    thread.start()
    thread.join()
    told[kib] = [getattr(answer, "reason", "allow") for answer in answers]
print(json.dumps(told))
"""


def test_a_shallow_stack_never_allows_what_is_forbidden(repository):
    """On a small thread stack Cedar gives up in the middle; we deny or answer right, never wrong.

    In a process of its own, because a thread takes the stack of a finished one where it finds one.
    """
    paths = [repository / "tests" / "guard", repository / "tests" / "support", repository]
    told = json.loads(
        subprocess.run(
            [sys.executable, "-c", SHALLOW],
            env={"PYTHONPATH": os.pathsep.join(map(str, paths))},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
    )
    for answers in told.values():
        for answer, right in zip(answers, ["allow", "forbidden", "forbidden"], strict=True):
            assert answer in {right, "policy_error"}
    assert told["64"] == ["policy_error"] * 3, "the smallest stack no longer fails: this test has lost its premise"
    assert told["256"] == told["1024"] == ["allow", "forbidden", "forbidden"]


class Panic(BaseException):
    """What a panic in native code looks like: no subclass of Exception."""


@pytest.mark.parametrize(
    "failure", [Panic("panicked"), MemoryError(), RecursionError("deep"), OSError(5, "io")], ids=repr
)
def test_a_failing_library_denies(engine, allowed, monkeypatch, failure):
    """Nothing that the library raises passes through."""

    def fail(*_args, **_kwargs):
        raise failure

    monkeypatch.setattr(cedarpy, "is_authorized", fail)
    assert_policy_error(engine.decide(allowed), type(failure).__name__)


@pytest.mark.parametrize(
    ("decision", "reasons", "errors"),
    [
        ("Allow", [], []),
        ("Allow", ["nobody-knows"], []),
        ("Allow", ["developer-infers", "nobody-knows"], []),
        ("Allow", ["auditor-never-infers"], []),
        ("Allow", ["developer-infers"], ["policy x errored"]),
        ("Deny", ["nobody-knows"], []),
        ("NoDecision", [], []),
        ("NoDecision", ["developer-infers"], []),
    ],
)
def test_an_answer_without_known_reasons_denies(engine, allowed, monkeypatch, decision, reasons, errors):
    """An Allow needs a decision, no error, and permits that this bundle holds."""
    answer = cedarpy.AuthzResult({"decision": decision, "diagnostics": {"reason": reasons, "errors": errors}})
    monkeypatch.setattr(cedarpy, "is_authorized", lambda *_args, **_kwargs: answer)
    assert_policy_error(engine.decide(allowed))


def test_errors_are_bounded(engine, allowed, monkeypatch):
    """A flood of long error texts still fits the record."""
    errors = ["x" * 100_000] * 1000
    answer = cedarpy.AuthzResult({"decision": "NoDecision", "diagnostics": {"reason": [], "errors": errors}})
    monkeypatch.setattr(cedarpy, "is_authorized", lambda *_args, **_kwargs: answer)
    assert [len(error) for error in engine.decide(allowed).errors] == [MAX_ERROR_CHARS] * MAX_ERRORS


def test_text_in_a_fact_stays_text(source_bundle):
    """Quotes, escapes and Cedar syntax in an id neither break out of it nor stand for another."""
    text = PERMIT_ALL + '@id("mallory") forbid (principal == User::"mallory", action, resource);'
    engine = unlinted_engine(source_bundle, text)
    assert isinstance(engine.decide(infer_facts(subject={"id": "mallory"})), Deny)
    for name in ('x" || true || "', 'mallory"', "mallory\0", "User::mallory", "\\u006dallory", "\n", "\u202emallory"):
        assert isinstance(engine.decide(infer_facts(subject={"id": name, "tenant": "plant"})), Allow), name


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.lists(st.text(max_size=5), max_size=3),
    st.tuples(st.text(max_size=5)),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    st.just(object()),
)
FIELDS = ["subject", "action", "target", "context", "id", "kind", "tenant", "roles", "clearance", *INFERENCE, *MODEL]


@settings(max_examples=300, deadline=None)
@given(field=st.sampled_from(FIELDS), value=JUNK)
def test_any_junk_in_any_field_gets_an_answer(compiled, field, value):
    """Total over everything that Python can put there."""
    facts = infer_facts()
    if field in {"subject", "action", "target", "context"}:
        facts = replace(facts, **{field: value})
    elif field in INFERENCE:
        facts = infer_facts(context={field: value})
    elif field in MODEL:
        facts = infer_facts(model={field: value})
    else:
        facts = replace(facts, subject=subject_facts(**{field: value}))
    decision = compiled.decide(facts)
    if isinstance(decision, Allow):
        assert isinstance(value, (bool, int, str, tuple))
    else:
        assert decision.reason in {"policy_error", "unknown_action", "forbidden", "no_permit"}
        assert not (decision.reason == "policy_error" and not decision.errors)


@settings(max_examples=50, deadline=None)
@given(value=JUNK)
def test_no_facts_at_all_get_an_answer(compiled, value):
    """Even the question itself may be junk."""
    decision = compiled.decide(value)
    assert isinstance(decision, Deny)
    assert decision.errors


@pytest.fixture(scope="module")
def compiled(source_bundle) -> PolicyEngine:
    """One engine for all drawn examples."""
    return unproven_engine(source_bundle)


def test_facts_are_not_changed(engine):
    """Deciding twice gives one answer: nothing is kept and nothing consumed."""
    facts: Facts = infer_facts()
    assert engine.decide(facts) == engine.decide(facts)
    assert facts == infer_facts()
