"""Proves that a schema and `actions.ACTIONS` say the same, by asking Cedar rather than by reading the schema's text.

For each action: exactly the table's facts on the table's target are accepted, for both kinds of subject; one fact less,
one more, one of another type, or another target is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import cedarpy

from policies.actions import ACTIONS, CONTEXT_FACTS, ROLES, ActionSpec, AddressFact, BoolFact, LongFact
from policies.decision import Facts, FactValue, SubjectFacts, TargetFacts
from policies.errors import SchemaRefused
from policies.slice import Json, Slice, build_slice

_ACTION_LINE: Final = re.compile(r'^action (?P<names>"[^{]*?)(?: in .*?)? appliesTo', re.MULTILINE)
_ROLE_LINE: Final = re.compile(r"^entity Role enum \[(?P<names>.*)\];", re.MULTILINE)
_TARGETS: Final = {
    "Model": TargetFacts("Model", "m", {"root": "0", "approved": True, "max_label": 0, "tenants": ("t",)}),
    "AuditLog": TargetFacts("AuditLog", "log"),
    "Appliance": TargetFacts("Appliance", "appliance"),
}


def check_schema(file: str, schema: cedarpy.Schema) -> None:
    """Compare a schema with the table.

    Raises:
        SchemaRefused: naming the first difference.
    """
    canonical = str(schema)
    _same(file, "actions", _quoted(_ACTION_LINE, canonical), set(ACTIONS))
    _same(file, "roles", _quoted(_ROLE_LINE, canonical), set(ROLES))
    for action, spec in ACTIONS.items():
        for kind in ("User", "Service"):
            question = build_slice(_sample(action, spec, kind))
            if not _accepts(schema, question):
                raise _refused(file, f"{action} by {kind} is not accepted with the facts of the table")
            for difference, changed in _changes(question, spec):
                if _accepts(schema, changed):
                    raise _refused(file, f"{action} by {kind} is accepted with {difference}")


def _changes(question: Slice, spec: ActionSpec) -> Iterator[tuple[str, Slice]]:
    """Every question that differs from the table in one respect."""
    context = question.request["context"]
    assert isinstance(context, dict)
    for key in spec.context:
        wrong: Json = "a text is no fact of the context"
        yield f"{key} missing", _with_context(question, {name: each for name, each in context.items() if name != key})
        yield f"{key} of another type", _with_context(question, {**context, key: wrong})
    yield "an unknown fact", _with_context(question, {**context, "unknown": True})
    for kind in _TARGETS.keys() - {spec.target}:
        yield f"target {kind}", replace(question, request={**question.request, "resource": {"type": kind, "id": "x"}})
    yield "an unlisted role", replace(question, entities=_with_role(question.entities, "unlisted"))
    for position, entity in enumerate(question.entities):
        assert isinstance(entity, dict)
        attributes = entity["attrs"]
        assert isinstance(attributes, dict)
        for name in attributes:
            rest: Json = {each: value for each, value in attributes.items() if each != name}
            entities = [*question.entities]
            entities[position] = {**entity, "attrs": rest}
            yield f"attribute {name} missing", replace(question, entities=entities)


def _accepts(schema: cedarpy.Schema, question: Slice) -> bool:
    """A question of the schema's shape gets a decision; any other gets none."""
    answer = cedarpy.is_authorized(
        question.request, cedarpy.PolicySet.from_str(""), json.dumps(question.entities), schema=schema
    )
    return bool(answer.decision is not cedarpy.Decision.NoDecision)


def _sample(action: str, spec: ActionSpec, kind: str) -> Facts:
    subject = SubjectFacts("s", "User" if kind == "User" else "Service", "t", ROLES, 0)
    return Facts(subject, action, _TARGETS[spec.target], {key: _sample_value(key) for key in spec.context})


def _sample_value(key: str) -> FactValue:
    match CONTEXT_FACTS[key]:
        case LongFact(minimum=minimum):
            return minimum
        case BoolFact():
            return False
        case AddressFact():
            return "127.0.0.1"


def _with_context(question: Slice, context: dict[str, Json]) -> Slice:
    return replace(question, request={**question.request, "context": context})


def _with_role(entities: list[Json], role: str) -> list[Json]:
    subject, *rest = entities
    assert isinstance(subject, dict)
    uid: Json = {"type": "Role", "id": role}
    return [{**subject, "parents": [uid]}, *rest, {"uid": uid, "attrs": {}, "parents": []}]


def _quoted(line: re.Pattern[str], canonical: str) -> set[str]:
    return {name for found in line.finditer(canonical) for name in re.findall(r'"([^"]*)"', found["names"])}


def _same(file: str, what: str, stated: set[str], expected: set[str]) -> None:
    if stated != expected:
        difference = ", ".join(sorted(stated ^ expected))
        raise _refused(file, f"its {what} differ from the table in {difference}")


def _refused(file: str, message: str) -> SchemaRefused:
    return SchemaRefused(message, hint="schema and policies/actions.py must say the same", file=file)
