"""R9: everything that the log has of one request, or of a stretch of time, leaf by leaf."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from appliance.reports.scope import Rows, Scope, at, text_fact
from audit.entry import Entry
from audit.search.expression import Equal, Expression


@dataclass(frozen=True, slots=True)
class IncidentEntry:
    """One leaf, whole: whoever has the log's key can have it proven."""

    index: int
    at: str
    kind: str
    actor: str
    tenant: str
    subject: str
    leaf_hash: str
    leaf: str


@dataclass(frozen=True, slots=True)
class IncidentExtract:
    """The result."""

    num_entries: int
    kinds: dict[str, int]
    actors: dict[str, int]
    """The hundred most frequent."""
    model_roots: tuple[str, ...]
    policy_digests: tuple[str, ...]
    """What the requests of the extract ran on and were judged by."""
    entries: tuple[IncidentEntry, ...]
    entries_left_out: int
    findings: tuple[str, ...]


def incident_filter(scope: Scope) -> Expression:
    """Give the entries of the request, or of the window."""
    return scope.window if scope.subject is None else Equal("subject", scope.subject)


def incident_extract(entries: Iterable[Entry], _scope: Scope) -> IncidentExtract:
    """Copy the entries and say what they have in common."""
    counts: Counter[str] = Counter()
    actors: Counter[str] = Counter()
    roots: dict[str, None] = {}
    digests: dict[str, None] = {}
    rows = Rows[IncidentEntry]([])
    num_entries = 0
    for entry in entries:
        event = entry.leaf.event
        num_entries += 1
        counts[event.kind] += 1
        actors[event.actor] += 1
        for known, name in ((roots, "model_root"), (digests, "policy_digest")):
            if value := text_fact(event.facts, name):
                known.setdefault(value)
        rows.add(
            IncidentEntry(
                index=entry.index,
                at=at(entry),
                kind=event.kind,
                actor=event.actor,
                tenant=event.tenant,
                subject=event.subject,
                leaf_hash=entry.leaf_hash.hex(),
                leaf=entry.leaf_bytes.decode(),
            )
        )
    return IncidentExtract(
        num_entries=num_entries,
        kinds=dict(counts),
        actors=dict(actors.most_common(100)),
        model_roots=tuple(roots),
        policy_digests=tuple(digests),
        entries=tuple(rows.kept),
        entries_left_out=rows.left_out,
        findings=(),
    )
