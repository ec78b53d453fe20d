"""Every question reaches Cedar whole."""

from __future__ import annotations

import pytest
from policy_questions import action_facts, infer_facts

from policies.actions import ACTIONS, CONTEXT_FACTS, ROLES
from policies.slice import FactsRefused, build_slice


def uids(value) -> set[tuple[str, str]]:
    """Every entity id anywhere in a JSON value."""
    match value:
        case {"type": kind, "id": name}:
            return {(kind, name)}
        case dict():
            return set().union(*map(uids, value.values()))
        case list():
            return set().union(*map(uids, value))
        case _:
            return set()


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_every_entity_that_is_named_is_in_the_slice(action):
    """Subject, target, roles and tenants: one that is missing would make Cedar skip the policy that asks it."""
    facts = action_facts(action, roles=ROLES, tenant="lab")
    question = build_slice(facts)
    present = [(entity["uid"]["type"], entity["uid"]["id"]) for entity in question.entities]
    named = uids({name: value for name, value in question.request.items() if name != "action"}) | uids(
        question.entities
    )
    assert set(present) == named
    assert len(present) == len(named), "an entity stands twice"
    assert {("Role", role) for role in ROLES} | {("Tenant", "lab")} < named
    assert (ACTIONS[action].target == "Model") == (("Tenant", "plant") in named)


def test_a_tenant_on_both_sides_stands_once():
    """Two entities with one id would be an error to Cedar."""
    question = build_slice(infer_facts())
    assert [entity["uid"] for entity in question.entities].count({"type": "Tenant", "id": "plant"}) == 1


def test_every_fact_of_the_table_is_taken_by_some_action():
    """No entry of the table is dead, and every action's keys are in it."""
    used = {key for spec in ACTIONS.values() for key in spec.context}
    assert used == set(CONTEXT_FACTS)


def test_a_refusal_never_quotes_a_long_or_raw_value():
    """What goes into an auditor's error is escaped and short."""
    with pytest.raises(FactsRefused) as refusal:
        build_slice(infer_facts(context={"\x1b[2J" + "x" * 1000: True}))
    assert len(str(refusal.value)) < 200
    assert str(refusal.value).isprintable()
