"""R11: who looked at the log, at what, and which reports were run; a run without a result was cut short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from appliance.audit_trail import Kind
from appliance.reports.scope import Rows, Scope, at, cut, int_fact, text_fact
from audit.entry import Entry

ACCESS_KINDS = (
    Kind.KEYS_LISTED.value,
    Kind.LOG_READ.value,
    Kind.REPORT_MADE.value,
    Kind.REPORT_RUN.value,
    Kind.REVIEW_SIGNED_OFF.value,
    Kind.CONTENT_CHECKED.value,
    Kind.CONTENT_SHOWN.value,
    Kind.EVIDENCE_MADE.value,
    Kind.EVIDENCE_STARTED.value,
    Kind.REPLAY_STARTED.value,
    Kind.UNSEAL_APPROVED.value,
    Kind.UNSEAL_PROPOSED.value,
)


@dataclass(frozen=True, slots=True)
class Reader:
    """One identity that looked at the log."""

    actor: str
    role: str
    tenant: str
    num_accesses: int


@dataclass(frozen=True, slots=True)
class Access:
    """One look."""

    index: int
    at: str
    kind: str
    actor: str
    source: str
    what: str
    query: str
    query_sha256: str


@dataclass(frozen=True, slots=True)
class LogAccess:
    """The result."""

    num_accesses: int
    kinds: dict[str, int]
    readers: tuple[Reader, ...]
    accesses: tuple[Access, ...]
    accesses_left_out: int
    unfinished_runs: tuple[int, ...]
    """Indexes of `report:run` entries whose result was never recorded."""
    findings: tuple[str, ...]


def log_access(entries: Iterable[Entry], scope: Scope) -> LogAccess:
    """List every access of the window; `entries` go on after it, as a run's result may come later."""
    counts: Counter[str] = Counter()
    readers: Counter[tuple[str, str, str]] = Counter()
    rows = Rows[Access]([])
    running: dict[int, None] = {}
    for entry in entries:
        event = entry.leaf.event
        if event.kind == Kind.REPORT_MADE.value:
            running.pop(int_fact(event.facts, "run_index"), None)
        if not scope.contains(entry):
            continue
        if event.kind == Kind.REPORT_RUN.value:
            running.setdefault(entry.index)
        counts[event.kind] += 1
        readers[event.actor, event.role, event.tenant] += 1
        facts = event.facts
        rows.add(
            Access(
                index=entry.index,
                at=at(entry),
                kind=event.kind,
                actor=event.actor,
                source=text_fact(facts, "source"),
                what=text_fact(facts, "what") or text_fact(facts, "report"),
                query=text_fact(facts, "filter"),
                query_sha256=text_fact(facts, "query_sha256"),
            )
        )
    running.pop(scope.size - 1, None)  # this very run, whose result is still to come
    return LogAccess(
        num_accesses=sum(counts.values()),
        kinds=dict(counts),
        readers=tuple(Reader(*who, count) for who, count in readers.most_common(1_000)),
        accesses=tuple(rows.kept),
        accesses_left_out=rows.left_out,
        unfinished_runs=tuple(running),
        findings=cut([f"entry {index}: a report was run and its result never recorded" for index in running]),
    )
