"""Facts -> the request and the entity slice that Cedar sees; or a refusal.

Checked here, because Cedar would answer each with a skipped policy or not at all: every fact is known, present and of
its type and range; principal, resource and every entity that they name are in the slice.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from policies.actions import ACTIONS, CONTEXT_FACTS, MAX_LABEL, SUBJECT_KINDS, AddressFact, BoolFact, LongFact
from policies.decision import Facts, FactValue, SubjectFacts, TargetFacts

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json]"

MAX_ID_CHARS: Final = 512
MAX_NAMES: Final = 1024
"""Roles of a subject, tenants of a model."""
_MODEL_ATTRIBUTES: Final = ("approved", "max_label", "root", "tenants")


class FactsRefused(ValueError):
    """A fact is missing, unknown, or not what it must be; the question is not put."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One question in Cedar's JSON forms."""

    request: dict[str, Json]
    entities: list[Json]


def build_slice(facts: Facts) -> Slice:
    """Turn facts into Cedar's request and entities.

    Raises:
        FactsRefused: a fact is missing, unknown, of the wrong type or out of range.  `facts.action` must be a key of
            `ACTIONS`; an unknown one is the caller's to answer.
    """
    spec = ACTIONS[facts.action]
    if facts.target.kind != spec.target:
        raise FactsRefused(f"{facts.action} is done to {spec.target}, not to {_shown(facts.target.kind)}")
    principal = _uid(_one_of("subject.kind", facts.subject.kind, SUBJECT_KINDS), _id("subject.id", facts.subject.id))
    resource = _uid(spec.target, _id("target.id", facts.target.id))
    subject, named_by_subject = _subject(principal, facts.subject)
    target, named_by_target = _target(resource, facts.target)
    named = {(uid["type"], uid["id"]): uid for uid in (*named_by_subject, *named_by_target)}
    return Slice(
        request={
            "principal": principal,
            "action": _uid("Action", facts.action),
            "resource": resource,
            "context": _context(facts.context, spec.context),
        },
        entities=[subject, target, *(_entity(uid) for uid in named.values())],
    )


def _subject(uid: dict[str, Json], subject: SubjectFacts) -> tuple[Json, list[dict[str, Json]]]:
    tenant = _uid("Tenant", _id("subject.tenant", subject.tenant))
    roles = [_uid("Role", role) for role in _names("subject.roles", subject.roles)]
    clearance = _long("subject.clearance", subject.clearance, LongFact(0, MAX_LABEL))
    return _entity(uid, {"tenant": _reference(tenant), "clearance": clearance}, [*roles]), [tenant, *roles]


def _target(uid: dict[str, Json], target: TargetFacts) -> tuple[Json, list[dict[str, Json]]]:
    if target.kind != "Model":
        _exactly("target attribute", target.attributes, ())
        return _entity(uid), []
    given = target.attributes
    _exactly("target attribute", given, _MODEL_ATTRIBUTES)
    tenants = [_uid("Tenant", tenant) for tenant in _names("target.tenants", given["tenants"])]
    attributes: dict[str, Json] = {
        "root": _id("target.root", given["root"]),
        "approved": _bool("target.approved", given["approved"]),
        "max_label": _long("target.max_label", given["max_label"], LongFact(0, MAX_LABEL)),
        "tenants": [_reference(tenant) for tenant in tenants],
    }
    return _entity(uid, attributes), tenants


def _context(given: Mapping[str, FactValue], keys: tuple[str, ...]) -> dict[str, Json]:
    _exactly("context fact", given, keys)
    context: dict[str, Json] = {}
    for key in keys:
        match CONTEXT_FACTS[key]:
            case LongFact() as bounds:
                context[key] = _long(key, given[key], bounds)
            case BoolFact():
                context[key] = _bool(key, given[key])
            case AddressFact():
                context[key] = {"__extn": {"fn": "ip", "arg": _address(key, given[key])}}
    return context


def _exactly(what: str, given: Mapping[str, FactValue], keys: tuple[str, ...]) -> None:
    if given.keys() == set(keys):
        return
    unknown = sorted(str(key) for key in given.keys() - set(keys))
    missing = sorted(set(keys) - given.keys())
    raise FactsRefused(f"unknown {what} {_shown(unknown[0])}" if unknown else f"missing {what} {missing[0]}")


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> str:
    for each in allowed:
        if value == each:
            return each
    raise FactsRefused(f"{name} {_shown(value)} is none of {', '.join(allowed)}")


def _id(name: str, value: object) -> str:
    if type(value) is not str or not 0 < len(value) <= MAX_ID_CHARS:
        raise FactsRefused(f"{name} is no text of 1 to {MAX_ID_CHARS} characters")
    return value


def _names(name: str, value: object) -> tuple[str, ...]:
    if type(value) is not tuple or len(value) > MAX_NAMES:
        raise FactsRefused(f"{name} is no tuple of at most {MAX_NAMES} names")
    return tuple(_id(name, each) for each in value)


def _bool(name: str, value: object) -> bool:
    if type(value) is not bool:
        raise FactsRefused(f"{name} is no truth value")
    return value


def _long(name: str, value: object, bounds: LongFact) -> int:
    if type(value) is not int:  # a bool is an int to Python; here it is not
        raise FactsRefused(f"{name} is no integer")
    if not bounds.minimum <= value <= bounds.maximum:
        raise FactsRefused(f"{name} is outside {bounds.minimum} to {bounds.maximum}")
    return value


def _address(name: str, value: object) -> str:
    """One address, never a range: to Cedar `10.0.0.0/8` is an address too.

    A mapped address becomes IPv4; else a rule on an IPv4 range would miss a client that came over a dual-stack socket.
    """
    if type(value) is not str:
        raise FactsRefused(f"{name} is no address")
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise FactsRefused(f"{name} is no IP address") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            address = ipaddress.IPv6Address(int(address))  # the zone names our interface, not the peer
        return str(address.ipv4_mapped or address)
    return str(address)


def _uid(kind: str, id_: str) -> dict[str, Json]:
    return {"type": kind, "id": id_}


def _reference(uid: dict[str, Json]) -> Json:
    return {"__entity": uid}


def _entity(uid: dict[str, Json], attributes: dict[str, Json] | None = None, parents: list[Json] | None = None) -> Json:
    return {"uid": uid, "attrs": attributes or {}, "parents": parents or []}


def _shown(value: object) -> str:
    """A value in an auditor's error: escaped and short."""
    return ascii(value)[:64]
