"""R2: what was changed, by whom and when: everything but use, reads and refused credentials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from appliance.audit_trail import Kind
from appliance.reports.scope import Rows, Scope, at
from audit.canonical import digest_of
from audit.entry import Entry
from audit.event import JsonValue
from audit.search.expression import And, Equal, Expression, Not

USE_KINDS = frozenset(
    {
        Kind.ACT_REFUSED.value,
        Kind.ANCHOR_FAILING.value,
        Kind.ANCHOR_RECOVERED.value,
        Kind.AUTH_REFUSED.value,
        Kind.CONTENT_CHECKED.value,
        Kind.CONTENT_SHOWN.value,
        Kind.ENGINE_DIED.value,
        Kind.ENGINE_RECOVERED.value,
        Kind.EVIDENCE_MADE.value,
        Kind.EVIDENCE_STARTED.value,
        Kind.EXPORT_FAILING.value,
        Kind.EXPORT_RECOVERED.value,
        Kind.KEYS_LISTED.value,
        Kind.LOG_READ.value,
        Kind.REPLAY_ENDED.value,
        Kind.REPLAY_STARTED.value,
        Kind.REPORT_MADE.value,
        Kind.REPORT_RUN.value,
        Kind.REQUEST_ABANDONED.value,
        Kind.REQUEST_ADMITTED.value,
        Kind.REQUEST_CANCELLED.value,
        Kind.REQUEST_COMPLETED.value,
        Kind.REQUEST_DENIED.value,
        Kind.REQUEST_FAILED.value,
        Kind.REQUEST_REFUSED.value,
        Kind.REVIEW_SIGNED_OFF.value,
        Kind.UNSEAL_APPROVED.value,
        Kind.UNSEAL_PROPOSED.value,
    }
)
"""What changes nothing.  A kind that is not here counts as a change: a new one is shown rather than missed."""
_SAID_EVERYWHERE = frozenset({"trust", "key_id", "source"})


@dataclass(frozen=True, slots=True)
class Change:
    """One act."""

    index: int
    at: str
    kind: str
    actor: str
    role: str
    subject: str
    facts: dict[str, JsonValue]
    """Without the trust, the key and the address, which the entry itself has."""


@dataclass(frozen=True, slots=True)
class ChangeHistory:
    """The result."""

    models: tuple[str, ...]
    """Roots of the models loaded, each once, in order."""
    policies: tuple[str, ...]
    """Digests of the policy bundles loaded, likewise."""
    num_changes: int
    changes: tuple[Change, ...]
    changes_left_out: int
    findings: tuple[str, ...]


def changes_filter(scope: Scope) -> Expression:
    """Give the entries that the report reads."""
    return And((scope.window, *(Not(Equal("kind", kind)) for kind in sorted(USE_KINDS))))


def change_history(entries: Iterable[Entry], _scope: Scope) -> ChangeHistory:
    """List every change of the window."""
    rows = Rows[Change]([])
    seen: dict[str, dict[str, None]] = {Kind.MODEL_LOADED.value: {}, Kind.POLICY_LOADED.value: {}}
    facts_of: dict[str, str] = {}
    findings: list[str] = []
    num_changes = 0
    for entry in entries:
        event = entry.leaf.event
        num_changes += 1
        if event.kind in seen:
            seen[event.kind].setdefault(event.subject)
            digest = digest_of(_shown(event.facts))
            if facts_of.setdefault(event.subject, digest) != digest and event.kind == Kind.MODEL_LOADED.value:
                findings.append(f"entry {entry.index}: {event.subject} was loaded with other facts than before")
        rows.add(
            Change(entry.index, at(entry), event.kind, event.actor, event.role, event.subject, _shown(event.facts))
        )
    return ChangeHistory(
        models=tuple(seen[Kind.MODEL_LOADED.value]),
        policies=tuple(seen[Kind.POLICY_LOADED.value]),
        num_changes=num_changes,
        changes=tuple(rows.kept),
        changes_left_out=rows.left_out,
        findings=tuple(findings),
    )


def _shown(facts: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in facts.items() if name not in _SAID_EVERYWHERE}
