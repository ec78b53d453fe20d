"""The question put to policy and its only two answers.

Facts are already vouched for by the caller (DESIGN 2; each fact's source is stated where it is filled in).  Nothing a
client sends freely - prompt text, `user`, `metadata`, headers - is a fact, except declared purpose and label, which
can only restrict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

FactValue: TypeAlias = "bool | int | str | tuple[str, ...]"


@dataclass(frozen=True, slots=True)
class SubjectFacts:
    """Who asks; from the credential's own row or verified claims."""

    id: str
    kind: Literal["User", "Service"]
    tenant: str
    roles: tuple[str, ...]
    clearance: int
    """0-4; highest label the subject may touch."""


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What is asked for; a Model's attributes come from its verified manifest and approval."""

    kind: Literal["Model", "AuditLog", "Appliance"]
    id: str
    attributes: Mapping[str, FactValue] = field(default_factory=dict)
    """Model: root (str, 64 hex), approved (bool), max_label (int), tenants (tuple; empty allows nobody).
    AuditLog and Appliance: none."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One question: may `subject` do `action` to `target` in this context?"""

    subject: SubjectFacts
    action: str
    target: TargetFacts
    context: Mapping[str, FactValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Obligations:
    """What an Allow demands of whoever carries it out: the strictest union over the policies that permitted."""

    log_level: Literal["none", "metadata", "commitments", "encrypted"] = "commitments"
    max_tokens_cap: int | None = None


@dataclass(frozen=True, slots=True)
class Allow:
    """Permitted by at least one policy, forbidden by none, decided without any error."""

    obligations: Obligations
    policy_ids: tuple[str, ...]
    policy_digest: str
    """SHA-256 of the policy bundle that decided, 64 hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Deny:
    """Everything else."""

    reason: str
    """Stable code for the client: e.g. "no_permit", "forbidden", "policy_error", "unknown_action"."""
    policy_ids: tuple[str, ...]
    """For auditors: the forbids that fired."""
    policy_digest: str
    errors: tuple[str, ...] = ()
    """For auditors: what went wrong while deciding; never shown to the client."""


Decision: TypeAlias = "Allow | Deny"
