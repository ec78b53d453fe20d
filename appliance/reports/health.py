"""R6: what went wrong around the log and the appliance, and who was turned away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from appliance.audit_trail import Kind
from appliance.reports.scope import Rows, Scope, at, cut, int_fact, kinds, text_fact
from audit.entry import Entry
from audit.event import JsonValue
from audit.search.expression import And, Expression, Not

_ORDINARY = (
    Kind.APPLIANCE_STOPPED.value,
    Kind.EVIDENCE_MADE.value,
    Kind.EVIDENCE_STARTED.value,
    Kind.KEYS_LISTED.value,
    Kind.LOG_READ.value,
    Kind.MODEL_LOADED.value,
    Kind.POLICY_LOADED.value,
    Kind.REPORT_MADE.value,
    Kind.REPORT_RUN.value,
    Kind.REQUEST_ADMITTED.value,
    Kind.REQUEST_COMPLETED.value,
)
"""What is no sign of trouble and comes often."""
_TROUBLE = ("died", "failing", "failed", "filling", "halted", "abandoned", "stepped", "refused", "unreachable")


@dataclass(frozen=True, slots=True)
class Trouble:
    """One sign of trouble that is not about a single request or credential."""

    index: int
    at: str
    kind: str
    subject: str
    what: str


@dataclass(frozen=True, slots=True)
class AuditHealth:
    """The result."""

    refused_credentials: int
    """Recorded and counted ones together."""
    refused_by_reason: dict[str, int]
    """Of the recorded ones."""
    refused_by_source: dict[str, int]
    """The ten addresses that were refused most often."""
    failed_requests: dict[str, int]
    """Code -> `request:failed` of the window."""
    abandoned_requests: int
    starts: int
    crashes: int
    """Starts that found the run before without its `appliance:stopped`."""
    troubles: tuple[Trouble, ...]
    """Of the engine, the log, its anchors and copies."""
    troubles_left_out: int
    findings: tuple[str, ...]


def health_filter(scope: Scope) -> Expression:
    """Give the entries that the report reads: all but the ordinary."""
    return And((scope.window, Not(kinds(_ORDINARY))))


def audit_health(entries: Iterable[Entry], _scope: Scope, ended_in_order: Callable[[int], bool]) -> AuditHealth:
    """Count what went wrong.

    Args:
        entries: what `health_filter` means.
        ended_in_order: whether the run before the start at an index ended with its `appliance:stopped`, or is gone.
    """
    reasons: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    rows = Rows[Trouble]([])
    findings: list[str] = []
    refused = abandoned = starts = crashes = 0
    for entry in entries:
        event = entry.leaf.event
        match event.kind:
            case Kind.AUTH_REFUSED.value:
                refused += 1 + int_fact(event.facts, "num_suppressed")
                reasons[text_fact(event.facts, "reason")] += 1
                _count_source(sources, text_fact(event.facts, "source"))
            case Kind.REQUEST_FAILED.value:
                failed[text_fact(event.facts, "code")] += 1
            case Kind.REQUEST_ABANDONED.value:
                abandoned += 1
            case Kind.APPLIANCE_STARTED.value:
                starts += 1
                if not ended_in_order(entry.index):
                    crashes += 1
                    findings.append(f"entry {entry.index}: the run before ended without a word")
            case _ if event.kind.partition(":")[2] in _TROUBLE and not event.kind.startswith("request:"):
                rows.add(Trouble(entry.index, at(entry), event.kind, event.subject, _what(event.facts)))
    findings += [f"entry {row.index}: {row.kind} ({row.what})" for row in rows.kept]
    return AuditHealth(
        refused_credentials=refused,
        refused_by_reason=dict(reasons),
        refused_by_source=dict(sources.most_common(10)),
        failed_requests=dict(failed),
        abandoned_requests=abandoned,
        starts=starts,
        crashes=crashes,
        troubles=tuple(rows.kept),
        troubles_left_out=rows.left_out,
        findings=cut(findings),
    )


def _count_source(sources: Counter[str], source: str) -> None:
    """Count an address; a stranger chooses how many there are, so the rare ones go when there are too many."""
    sources[source] += 1
    if len(sources) > 2_000:  # noqa: PLR2004 - twice what is kept
        kept = dict(sources.most_common(1_000))
        sources.clear()
        sources.update(kept)


def _what(facts: Mapping[str, JsonValue]) -> str:
    names = ("reason", "code", "destination", "anchor", "witness", "exit_code", "percent", "signal", "outcome")
    return ", ".join(f"{name}={facts[name]}" for name in names if facts.get(name) is not None)
