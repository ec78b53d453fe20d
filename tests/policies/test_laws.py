"""Laws of the delivered policies and of every overlay, over drawn questions and drawn policies."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_questions import INFERENCE, MODEL, MOMENT, with_site, without_tables

from policies.actions import ACTIONS, ROLES
from policies.bundle import SCHEMA_FILE, load_bundle, read_source_bundle, read_tables
from policies.cedar import PolicyEngine
from policies.compile import compile_policies
from policies.decision import Allow, Deny, Facts, SubjectFacts, TargetFacts
from policies.table import run_table

SOURCE = read_source_bundle()
SCHEMA = cedarpy.Schema.from_str(SOURCE[SCHEMA_FILE].decode())
DELIVERED = load_bundle(SOURCE)
GENEROUS = load_bundle(with_site(without_tables(SOURCE), '@id("site.all") permit (principal, action, resource);'))
"""The widest overlay there is."""

LABELS = st.integers(0, 4)
TENANTS = st.sampled_from(["plant", "lab", "office"])
SUBJECTS = st.builds(
    SubjectFacts,
    id=st.sampled_from(["ada", "bob"]),
    kind=st.sampled_from(["User", "Service"]),
    tenant=TENANTS,
    roles=st.lists(st.sampled_from(ROLES), unique=True).map(tuple),
    clearance=LABELS,
)
MODELS = st.builds(
    lambda approved, max_label, tenants: TargetFacts(
        "Model", "m", {**MODEL, "approved": approved, "max_label": max_label, "tenants": tuple(tenants)}
    ),
    st.booleans(),
    LABELS,
    st.lists(TENANTS, unique=True),
)


@st.composite
def questions(draw, *actions: str) -> Facts:
    """Any well-formed question, about one of the given actions or about any."""
    chosen = draw(st.sampled_from(actions or sorted(ACTIONS)))
    spec = ACTIONS[chosen]
    target = draw(MODELS) if spec.target == "Model" else TargetFacts(spec.target, "x")
    context = {
        **{fact: INFERENCE[fact] for fact in spec.context},
        "minute_of_day": draw(st.integers(0, 1439)),
        "weekday": draw(st.integers(0, 6)),
        "source": draw(st.sampled_from(["127.0.0.1", "10.1.2.3", "::1", "fd00::7"])),
        "development_trust": draw(st.booleans()),
    }
    if "label" in spec.context:
        context["label"] = draw(LABELS)
    if chosen == "infer":
        context |= {
            "n": draw(st.integers(0, 20)),
            "max_tokens": draw(st.integers(0, 4096)),
            "stream": draw(st.booleans()),
            "logprobs": draw(st.booleans()),
        }
    return Facts(draw(SUBJECTS), chosen, target, context)


def broken_invariants(facts: Facts) -> set[str]:
    """The invariants in plain Python, written from the design and not from the Cedar text."""
    roles, model, context = set(facts.subject.roles), facts.target.attributes, facts.context
    broken = set()
    if facts.action in {"infer", "tokenize"} and facts.subject.tenant not in model["tenants"]:
        broken.add("tenant-must-be-named")
    if facts.action in {"infer", "tokenize", "replayRequest"}:
        if not model["approved"]:
            broken.add("model-must-be-approved")
        if context["label"] > facts.subject.clearance:
            broken.add("label-within-clearance")
        if context["label"] > model["max_label"]:
            broken.add("label-within-model")
    if facts.action == "infer":
        broken |= {f"{role}-never-infers" for role in roles & {"auditor", "operator", "privacy"}}
    if facts.action == "revokeKey" and "privacy" in roles:
        broken.add("privacy-never-revokes")
    if facts.action in KEPT_FROM["auditor"] and "auditor" in roles:
        broken.add("auditor-never-changes")
    if facts.action in KEPT_FROM["operator"] and "operator" in roles:
        broken.add("operator-never-reads-content")
    if facts.action == "signReview" and "operator" in roles:
        broken.add("operator-never-reviews")
    return broken


KEPT_FROM = {
    "auditor": {
        *("approvePrune", "approveRetention", "eraseSubject", "placeHold", "proposePrune", "proposeRelease"),
        *("proposeRetention", "revokeKey"),
    },
    "operator": {"approveUnseal", "checkContent", "eraseSubject", "proposeUnseal", "readUnsealed", "replayRequest"},
}


GRANTS = {
    "developer": {"infer", "tokenize", "listModels", "readSpec", "proveReceipt"},
    "operator": {
        *("readMetrics", "listModels", "listKeys", "revokeKey", "readSpec", "readCheckpoint"),
        *("proposePrune", "proposeRetention", "readRetention"),
    },
    "auditor": {
        *("readAudit", "proveAudit", "readCheckpoint", "listModels", "readMetrics", "listKeys", "readSpec"),
        *("approveRelease", "approveUnseal", "checkContent", "proposeUnseal", "readRetention", "readUnsealed"),
        "replayRequest",
        "makeEvidence",
        *("runReport", "signReview"),
    },
    "peer": {"addCheckpoint"},
    "privacy": {
        *("approvePrune", "approveRelease", "approveRetention", "approveUnseal", "checkContent", "eraseSubject"),
        *("listModels", "placeHold", "proposeRelease", "proposeUnseal", "proveAudit", "readAudit", "readCheckpoint"),
        *("readRetention", "readSpec", "readUnsealed", "runReport"),
    },
}


@settings(max_examples=300, deadline=None)
@given(facts=questions())
def test_the_delivered_policies_say_what_the_design_says(facts):
    """Allowed exactly when a role grants it, no invariant is broken and the limits hold."""
    forbidden = broken_invariants(facts)
    if facts.action == "infer" and not 1 <= facts.context["n"] <= 16:
        forbidden.add("choices-within-limit")
    granted = any(facts.action in GRANTS[role] for role in facts.subject.roles)
    match DELIVERED.decide(facts):
        case Allow():
            assert granted
            assert not forbidden
        case Deny(reason="forbidden", policy_ids=policy_ids):
            assert set(policy_ids) == forbidden
        case Deny(reason=reason):
            assert reason == "no_permit"
            assert not granted
            assert not forbidden


@settings(max_examples=300, deadline=None)
@given(facts=questions())
def test_no_overlay_outvotes_an_invariant(facts):
    """Even where everything is permitted to everybody, each broken invariant still denies, by name."""
    broken = broken_invariants(facts)
    decision = GENEROUS.decide(facts)
    assert isinstance(decision, Allow) or decision.reason == "forbidden"
    assert broken <= set(decision.policy_ids)
    assert not broken or isinstance(decision, Deny)


def test_the_invariants_table_holds_under_the_widest_overlay():
    """The stated cases, too."""
    cases = [case for case in read_tables(SOURCE) if case.name.startswith("tests/invariants.json")]
    assert len(cases) > 50
    assert run_table(GENEROUS, cases) == ()


@settings(max_examples=200, deadline=None)
@given(facts=questions("infer", "tokenize", "replayRequest"), lower=LABELS, higher=LABELS)
def test_less_clearance_and_more_label_never_turn_a_deny_into_an_allow(facts, lower, higher):
    """Monotone in both, and in what the model may see and whom it serves."""
    label, clearance = facts.context["label"], facts.subject.clearance
    model = facts.target.attributes
    changes = [
        replace(facts, subject=replace(facts.subject, clearance=min(clearance, lower))),
        replace(facts, context={**facts.context, "label": max(label, higher)}),
        replace(facts, target=replace(facts.target, attributes={**model, "max_label": min(model["max_label"], lower)})),
        replace(facts, target=replace(facts.target, attributes={**model, "tenants": model["tenants"][1:]})),
        replace(facts, target=replace(facts.target, attributes={**model, "approved": False})),
    ]
    for engine in (DELIVERED, GENEROUS):
        for changed in changes:
            if isinstance(engine.decide(changed), Allow):
                assert isinstance(engine.decide(facts), Allow)


@settings(max_examples=200, deadline=None)
@given(facts=questions())
def test_leaving_a_role_that_no_forbid_names_never_adds_an_allow(facts):
    """Losing `developer` only ever loses; and nobody without a role is allowed anything."""
    left = tuple(role for role in facts.subject.roles if role != "developer")
    changed = replace(facts, subject=replace(facts.subject, roles=left))
    if isinstance(DELIVERED.decide(changed), Allow):
        assert isinstance(DELIVERED.decide(facts), Allow)
    empty = replace(facts, subject=replace(facts.subject, roles=()))
    assert isinstance(DELIVERED.decide(empty), Deny)


CONDITIONS = st.sampled_from(
    [
        "",
        "when { context.minute_of_day < 360 }",
        "when { context.weekday > 4 || context.development_trust }",
        'when { context.source.isInRange(ip("10.0.0.0/8")) }',
        "unless { principal.clearance >= 2 }",
        "when { principal is Service }",
        'unless { principal in Role::"operator" }',
        'when { principal.tenant == Tenant::"lab" }',
    ]
)
SCOPES = st.sampled_from(["principal", *(f'principal in Role::"{role}"' for role in ROLES)])
ACTION_SCOPES = st.sampled_from(["action", *(f'action == Action::"{action}"' for action in ACTIONS)])


@st.composite
def policy_texts(draw, effect: str) -> str:
    """One policy without its `@id`."""
    return f"{effect} ({draw(SCOPES)}, {draw(ACTION_SCOPES)}, resource) {draw(CONDITIONS)};"


def engine_of(policies: list[str]) -> PolicyEngine:
    """Compile drawn policies beside the delivered ones."""
    overlay = {f"site/{place}.cedar": f'@id("site.p{place}") {text}'.encode() for place, text in enumerate(policies)}
    base = {name: content for name, content in SOURCE.items() if name.startswith("base/")}
    compiled = compile_policies({**base, **overlay}, SCHEMA)
    digest = hashlib.sha256("".join(policies).encode()).hexdigest()
    return PolicyEngine(
        schema=SCHEMA,
        policies=compiled.policies,
        permits=compiled.permits,
        forbids=compiled.forbids,
        policy_digest=digest,
    )


@settings(max_examples=60, deadline=None)
@given(
    permits=st.lists(policy_texts("permit"), max_size=4),
    forbids=st.lists(policy_texts("forbid"), max_size=3),
    more=policy_texts("forbid"),
    asked=st.lists(questions(), min_size=4, max_size=8),
)
def test_adding_a_forbid_never_adds_an_allow(permits, forbids, more, asked):
    """Whatever the policies are, one forbid more only ever takes away."""
    before = engine_of([*permits, *forbids])
    after = engine_of([*permits, *forbids, more])
    for facts in asked:
        if isinstance(after.decide(facts), Allow):
            assert isinstance(before.decide(facts), Allow)
        assert isinstance(after.decide(facts), Allow) or after.decide(facts).reason != "policy_error"


@settings(max_examples=40, deadline=None)
@given(
    permits=st.lists(policy_texts("permit"), min_size=1, max_size=5),
    forbids=st.lists(policy_texts("forbid"), max_size=3),
    facts=questions(),
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_policies_means_nothing(permits, forbids, facts, order):
    """Shuffled policies decide the same."""
    policies = [*permits, *forbids]
    shuffled = order.sample(policies, len(policies))
    first, second = engine_of(policies).decide(facts), engine_of(shuffled).decide(facts)
    assert type(first) is type(second)
    assert len(first.policy_ids) == len(second.policy_ids)


@pytest.mark.parametrize("source", ["10.1.2.3", "::ffff:10.1.2.3", "::ffff:a01:203"])
def test_a_mapped_address_does_not_evade_a_range(source):
    """A client on a dual-stack socket is judged by its IPv4 address."""
    site = '@id("site.net") forbid (principal, action, resource) when { context.source.isInRange(ip("10.0.0.0/8")) };'
    engine = load_bundle(with_site(without_tables(SOURCE), site))
    facts = Facts(SubjectFacts("ada", "User", "plant", ("developer",), 2), "listModels", TargetFacts("Appliance", "a"))
    assert engine.decide(replace(facts, context={**MOMENT, "source": source})).policy_ids == ("site.net",)
    assert isinstance(engine.decide(replace(facts, context={**MOMENT, "source": "::ffff:11.1.2.3"})), Allow)
    assert isinstance(engine.decide(replace(facts, context={**MOMENT, "source": "fe80::1%eth0"})), Allow)
