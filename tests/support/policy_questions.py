"""Well-formed questions to policy, to change in one respect, and small bundles around the delivered schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.actions import ACTIONS
from policies.bundle import SCHEMA_FILE, policy_digest
from policies.cedar import PolicyEngine
from policies.compile import compile_policies, compile_schema
from policies.decision import Facts, SubjectFacts, TargetFacts

MOMENT: dict[str, Any] = {"development_trust": False, "minute_of_day": 600, "source": "127.0.0.1", "weekday": 2}
TEXT: dict[str, Any] = {**MOMENT, "label": 1}
INFERENCE: dict[str, Any] = {**TEXT, "logprobs": False, "max_tokens": 0, "n": 1, "stream": False}
MODEL: dict[str, Any] = {"root": "0" * 64, "approved": True, "max_label": 2, "tenants": ("plant",)}


def subject_facts(**changes: Any) -> SubjectFacts:
    """A cleared developer of the tenant `plant`."""
    return SubjectFacts(
        **{"id": "ada", "kind": "User", "tenant": "plant", "roles": ("developer",), "clearance": 2, **changes}
    )


def infer_facts(*, subject: dict | None = None, model: dict | None = None, context: dict | None = None) -> Facts:
    """A question that the delivered policies allow, with the given facts replaced."""
    return Facts(
        subject=subject_facts(**(subject or {})),
        action="infer",
        target=TargetFacts("Model", "starter", {**MODEL, **(model or {})}),
        context={**INFERENCE, **(context or {})},
    )


def action_facts(action: str, **subject: Any) -> Facts:
    """A well-formed question about any action."""
    spec = ACTIONS[action]
    attributes = MODEL if spec.target == "Model" else {}
    context = {fact: INFERENCE[fact] for fact in spec.context}
    return Facts(subject_facts(**subject), action, TargetFacts(spec.target, "target", attributes), context)


def with_site(bundle: Mapping[str, bytes], *policies: str) -> dict[str, bytes]:
    """A bundle with a site overlay, each policy in a file of its own."""
    overlay = {f"site/{place:02}.cedar": text.encode() for place, text in enumerate(policies)}
    return {**bundle, **overlay}


def without_tables(bundle: Mapping[str, bytes]) -> dict[str, bytes]:
    """A bundle that promises nothing."""
    return {name: content for name, content in bundle.items() if not name.startswith("tests/")}


def unproven_engine(bundle: Mapping[str, bytes]) -> PolicyEngine:
    """An engine over a bundle that `load_bundle` may refuse for what it lacks: a test sees what then happens."""
    schema = compile_schema(SCHEMA_FILE, bundle[SCHEMA_FILE])
    policies = {name: content for name, content in bundle.items() if name.endswith(".cedar")}
    compiled = compile_policies(policies, schema)
    return PolicyEngine(
        schema=schema,
        policies=compiled.policies,
        permits=compiled.permits,
        forbids=compiled.forbids,
        policy_digest=policy_digest(bundle),
    )
