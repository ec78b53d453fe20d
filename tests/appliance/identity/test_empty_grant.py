"""DESIGN 7, invariant 2: an empty grant allows nothing."""

from __future__ import annotations

import pytest
from identity_keys import bearer
from policy_questions import INFERENCE, MODEL

from policies.actions import ACTIONS
from policies.bundle import load_bundle, read_source_bundle
from policies.decision import Allow, Deny, Facts, SubjectFacts, TargetFacts


@pytest.fixture(scope="module")
def engine():
    """The delivered policies."""
    return load_bundle(read_source_bundle())


def decide(engine, principal, action, tenants=("plant",)):
    """Put the question that the trunk would put for this principal."""
    target = ACTIONS[action].target
    return engine.decide(
        Facts(
            SubjectFacts(principal.id, principal.kind, principal.tenant, principal.roles, principal.clearance),
            action,
            TargetFacts(target, "x", {**MODEL, "tenants": tenants} if target == "Model" else {}),
            {fact: INFERENCE[fact] for fact in ACTIONS[action].context},
        )
    )


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_a_key_without_roles_is_allowed_nothing(desk, minted, engine, action):
    """It authenticates, as nobody in particular: empty means none, never all."""
    principal = desk(bearer(minted(roles=(), clearance=4))).principal
    assert principal.roles == ()
    assert isinstance(decide(engine, principal, action), Deny)


@pytest.mark.parametrize("action", ["infer", "tokenize"])
def test_a_model_without_tenants_serves_nobody(desk, minted, engine, action):
    """An approval that names no tenant is not an approval for all."""
    principal = desk(bearer(minted())).principal
    assert isinstance(decide(engine, principal, action), Allow)
    assert decide(engine, principal, action, tenants=()).policy_ids == ("tenant-must-be-named",)


@pytest.mark.parametrize("roles", [("Developer",), ("*",), ("admin",), ("",), ("developer ",)], ids=ascii)
def test_a_role_that_does_not_exist_grants_nothing(desk, minted, engine, roles):
    """Nor does one that looks like another, or like all."""
    principal = desk(bearer(minted(roles=roles))).principal
    assert all(isinstance(decide(engine, principal, action), Deny) for action in ACTIONS)
