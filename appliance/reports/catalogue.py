"""R3: which kinds of event the log holds, what they carry, and that the six facts of NIST AU-3 are never missing.

What: the kind.  When: the time.  Where: the node.  Source: the caller's address, or the appliance where it acts alone.
Outcome: a stated outcome or decision, or the kind, whose second word says what came of it.  Identity: the actor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from appliance.audit_trail import SYSTEM, Kind
from appliance.reports.scope import Scope, at, cut
from audit.entry import Entry


@dataclass(frozen=True, slots=True)
class KindRow:
    """One kind."""

    kind: str
    is_ours: bool
    """This release knows it."""
    count: int
    first_at: str
    last_at: str
    facts: tuple[str, ...]
    """Names of all facts that some entry of the kind carried."""
    outcome: str
    """`stated` by a fact in every entry, `implied` by the kind in some."""


@dataclass(frozen=True, slots=True)
class EventCatalogue:
    """The result."""

    num_entries: int
    kinds: tuple[KindRow, ...]
    never_seen: tuple[str, ...]
    """Kinds of this release that the window has none of."""
    without_what: int
    without_when: int
    without_where: int
    without_source: int
    without_outcome: int
    without_identity: int
    """The six facts: in how many entries each of them is missing."""
    findings: tuple[str, ...]


@dataclass(slots=True)
class _Seen:
    first_at: str
    last_at: str
    count: int = 0
    num_stated: int = 0
    facts: set[str] = field(default_factory=set)


def event_catalogue(entries: Iterable[Entry], _scope: Scope) -> EventCatalogue:
    """Catalogue the window's entries and look for what is missing in any of them."""
    seen: dict[str, _Seen] = {}
    missing: Counter[str] = Counter()
    findings: list[str] = []
    num_entries = 0
    for entry in entries:
        event = entry.leaf.event
        num_entries += 1
        row = seen.setdefault(event.kind, _Seen(at(entry), at(entry)))
        row.last_at, row.count = at(entry), row.count + 1
        row.facts.update(event.facts)
        row.num_stated += _states_outcome(entry)
        for fact in _missing(entry):
            missing[fact] += 1
            findings.append(f"entry {entry.index}: {event.kind} without its {fact}")
    ours = {kind.value for kind in Kind}
    findings += [f"{kind} is no kind of this release" for kind in sorted(seen.keys() - ours)]
    return EventCatalogue(
        num_entries=num_entries,
        kinds=tuple(_row(kind, row, is_ours=kind in ours) for kind, row in sorted(seen.items())),
        never_seen=tuple(sorted(ours - seen.keys())),
        without_what=missing["what"],
        without_when=missing["when"],
        without_where=missing["where"],
        without_source=missing["source"],
        without_outcome=missing["outcome"],
        without_identity=missing["identity"],
        findings=cut(findings),
    )


def _row(kind: str, row: _Seen, *, is_ours: bool) -> KindRow:
    outcome = "stated" if row.num_stated == row.count else "implied"
    return KindRow(kind, is_ours, row.count, row.first_at, row.last_at, tuple(sorted(row.facts)), outcome)


def _missing(entry: Entry) -> Iterable[str]:
    event = entry.leaf.event
    if not event.kind:
        yield "what"
    if event.ts_us <= 0:
        yield "when"
    if not entry.leaf.place.node_id:
        yield "where"
    if not event.facts.get("source") and event.actor != SYSTEM.id and not _continues(entry):
        yield "source"
    if not _states_outcome(entry) and not event.kind.partition(":")[2]:
        yield "outcome"
    if not event.actor:
        yield "identity"


def _states_outcome(entry: Entry) -> bool:
    facts = entry.leaf.event.facts
    return bool(facts.get("outcome") or facts.get("decision"))


def _continues(entry: Entry) -> bool:
    """A terminal record names the admission whose source it goes on with."""
    return type(entry.leaf.event.facts.get("admitted_index")) is int
