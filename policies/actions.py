"""Every action policy knows, what it is done to and which facts it is decided on.

This table is the contract between the trunk's routes and the Cedar schema: a route names one of these actions or the
appliance does not start, and a schema that disagrees with the table in any action, key or type is refused at load
(`schema_check`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

TargetKind: TypeAlias = Literal["Model", "AuditLog", "Appliance"]

ROLES = ("auditor", "developer", "operator", "peer", "privacy")
"""Every role a subject may hold; the schema enumerates the same."""

SUBJECT_KINDS = ("Service", "User")
MAX_LABEL = 4
MAX_LONG = 2**53
"""Larger integers are refused: beyond it, JSON readers disagree on the value."""


@dataclass(frozen=True, slots=True)
class LongFact:
    """An integer within stated bounds, both included."""

    minimum: int = 0
    maximum: int = MAX_LONG


@dataclass(frozen=True, slots=True)
class BoolFact:
    """A truth value; an integer is not one."""


@dataclass(frozen=True, slots=True)
class AddressFact:
    """One IP address in text form; an IPv4 address mapped into IPv6 counts as the IPv4 address it is."""


FactType: TypeAlias = LongFact | BoolFact | AddressFact

CONTEXT_FACTS: Mapping[str, FactType] = MappingProxyType(
    {
        "development_trust": BoolFact(),  # this appliance runs under development trust
        "label": LongFact(0, MAX_LABEL),  # sensitivity of the request, declared or raised, never lowered
        "logprobs": BoolFact(),  # log probabilities are asked for
        "max_tokens": LongFact(),  # answer length asked for; 0 means: not stated
        "minute_of_day": LongFact(0, 1439),  # appliance clock, UTC
        "n": LongFact(),  # choices asked for
        "source": AddressFact(),  # socket peer
        "stream": BoolFact(),  # a streamed answer is asked for
        "weekday": LongFact(0, 6),  # appliance clock, UTC; Monday is 0, as in `datetime.weekday`
    }
)
"""Name and range of every context fact, in alphabetical order."""


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """What one action is done to, and the context facts that must all be present."""

    target: TargetKind
    context: tuple[str, ...]


_MOMENT = ("development_trust", "minute_of_day", "source", "weekday")
_TEXT = tuple(sorted((*_MOMENT, "label")))
_INFERENCE = tuple(sorted((*_TEXT, "logprobs", "max_tokens", "n", "stream")))

ACTIONS: Mapping[str, ActionSpec] = MappingProxyType(
    {
        "addCheckpoint": ActionSpec("AuditLog", _MOMENT),
        "approvePrune": ActionSpec("AuditLog", _MOMENT),
        "approveRelease": ActionSpec("AuditLog", _MOMENT),
        "approveRetention": ActionSpec("AuditLog", _MOMENT),
        "approveUnseal": ActionSpec("AuditLog", _MOMENT),
        "checkContent": ActionSpec("AuditLog", _MOMENT),
        "eraseSubject": ActionSpec("AuditLog", _MOMENT),
        "infer": ActionSpec("Model", _INFERENCE),
        "listKeys": ActionSpec("Appliance", _MOMENT),
        "listModels": ActionSpec("Appliance", _MOMENT),
        "makeEvidence": ActionSpec("AuditLog", _MOMENT),
        "placeHold": ActionSpec("AuditLog", _MOMENT),
        "proposePrune": ActionSpec("AuditLog", _MOMENT),
        "proposeRelease": ActionSpec("AuditLog", _MOMENT),
        "proposeRetention": ActionSpec("AuditLog", _MOMENT),
        "proposeUnseal": ActionSpec("AuditLog", _MOMENT),
        "proveAudit": ActionSpec("AuditLog", _MOMENT),
        "proveReceipt": ActionSpec("AuditLog", _MOMENT),
        "readAudit": ActionSpec("AuditLog", _MOMENT),
        "readCheckpoint": ActionSpec("AuditLog", _MOMENT),
        "readMetrics": ActionSpec("Appliance", _MOMENT),
        "readRetention": ActionSpec("AuditLog", _MOMENT),
        "readSpec": ActionSpec("Appliance", _MOMENT),
        "readUnsealed": ActionSpec("AuditLog", _MOMENT),
        "replayRequest": ActionSpec("Model", _TEXT),
        "revokeKey": ActionSpec("Appliance", _MOMENT),
        "runReport": ActionSpec("AuditLog", _MOMENT),
        "signReview": ActionSpec("AuditLog", _MOMENT),
        "tokenize": ActionSpec("Model", _TEXT),
    }
)
"""In alphabetical order."""
