"""Policy text -> a policy set whose ids are the authors' own `@id`s, and what each permit demands.

Order: guard the raw text, parse, lint, validate against the schema, read obligations.  Nothing is evaluated here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import cedarpy

from policies.decision import Obligations
from policies.errors import BundleRefused, PolicyRefused, SchemaRefused
from policies.lint import ParsedPolicy, lint
from policies.obligations import ObligationUnusable, read_obligations
from policies.text_guard import guarded_text


@dataclass(frozen=True, slots=True)
class CompiledPolicies:
    """Ready to be asked."""

    policies: cedarpy.PolicySet
    permits: Mapping[str, Obligations]
    forbids: frozenset[str]
    parsed: Mapping[str, ParsedPolicy]
    """By `@id`."""


def compile_schema(file: str, content: bytes) -> cedarpy.Schema:
    """Parse the schema.

    Raises:
        TextRefused: its bytes are unsafe to parse.
        SchemaRefused: it is no Cedar schema.
    """
    text = guarded_text(file, content, angles_nest=True)
    try:
        return cedarpy.Schema.from_str(text)
    except ValueError as failure:
        raise SchemaRefused(str(failure), hint="correct the schema", file=file) from None


def compile_policies(files: Mapping[str, bytes], schema: cedarpy.Schema) -> CompiledPolicies:
    """Compile every policy file; their order means nothing.

    Raises:
        TextRefused: a file's bytes are unsafe to parse.
        PolicyRefused: a policy breaks a rule, or two share an `@id`.
        BundleRefused: a file is no Cedar text.
    """
    parsed: dict[str, ParsedPolicy] = {}
    for file, content in sorted(files.items()):
        text = guarded_text(file, content)
        in_file = parse_policies(file, text)
        for policy in in_file:
            lint(policy)
            if policy.id in parsed:
                raise PolicyRefused(
                    f"its @id is taken in {parsed[policy.id].file}",
                    hint="every policy has its own",
                    file=file,
                    policy_id=policy.id,
                )
            parsed[policy.id] = policy
        _validate(file, text, schema, in_file)
    forms = {policy.id: policy.form for policy in parsed.values()}
    return CompiledPolicies(
        policies=cedarpy.PolicySet.from_json_str(
            json.dumps({"staticPolicies": forms, "templates": {}, "templateLinks": []})
        ),
        permits={policy.id: _obligations(policy) for policy in parsed.values() if policy.is_permit},
        forbids=frozenset(policy.id for policy in parsed.values() if not policy.is_permit),
        parsed=parsed,
    )


def parse_policies(file: str, text: str) -> tuple[ParsedPolicy, ...]:
    """Parse guarded text; the policies come in the order of the file.

    Raises:
        BundleRefused: it is no Cedar text, or holds a template.
    """
    try:
        form = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as failure:
        raise BundleRefused(str(failure), hint="correct the policy text", file=file) from None
    except RecursionError:
        raise BundleRefused("an expression is too deep", hint="split the policy", file=file) from None
    if form["templates"] or form["templateLinks"]:
        raise BundleRefused("holds a template", hint="templates are not taken; name the principal", file=file)
    # Cedar names the policies of a text policy0, policy1, ... in their order.
    by_place = {int(name.removeprefix("policy")): policy for name, policy in form["staticPolicies"].items()}
    return tuple(ParsedPolicy(file, place, policy) for place, policy in sorted(by_place.items()))


def _validate(file: str, text: str, schema: cedarpy.Schema, in_file: tuple[ParsedPolicy, ...]) -> None:
    """Cedar's validator: types, attributes, actions, roles, and no unguarded optional attribute."""
    result = cedarpy.validate_policies(text, schema)
    if result.validation_passed:
        return
    first = result.errors[0]
    by_cedar_id = {f"policy{policy.place}": policy.id for policy in in_file}
    raise PolicyRefused(
        str(first.error),
        hint="correct it against schema/appliance.cedarschema",
        file=file,
        policy_id=by_cedar_id.get(first.policy_id, first.policy_id),
    )


def _obligations(policy: ParsedPolicy) -> Obligations:
    annotations = policy.annotations
    del annotations["id"]
    try:
        return read_obligations(annotations)
    except ObligationUnusable as failure:
        raise PolicyRefused(
            str(failure), hint="correct the annotation", file=policy.file, policy_id=policy.id
        ) from None
