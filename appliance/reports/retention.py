"""R4: what must be kept, what is held, and what was given up: the state that the leaves add up to.

State derives from the log alone: a hold lives from its `hold:placed` until a `hold:released` names it.  What the
appliance must not have let happen is looked for again: an act of two people by one, a floor lowered without two, a
pruning or an erasure under a hold - which whoever hid the hold's row for a moment can bring about, and not undo here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from appliance.audit_trail import Kind
from appliance.keeping.names import same_name
from appliance.reports.scope import Rows, Scope, at, cut, int_fact, text_fact
from audit.entry import Entry
from audit.event import JsonValue

KEEPING_KINDS = (
    Kind.HOLD_PLACED.value,
    Kind.HOLD_RELEASED.value,
    Kind.HOLD_RELEASE_PROPOSED.value,
    Kind.LOG_PRUNED.value,
    Kind.PRUNE_PROPOSED.value,
    Kind.RETENTION_LOWERED.value,
    Kind.RETENTION_SET.value,
    Kind.RETENTION_CHANGE_PROPOSED.value,
    Kind.SUBJECT_ERASING.value,
)


@dataclass(frozen=True, slots=True)
class KeepingAct:
    """One act on what is kept."""

    index: int
    at: str
    kind: str
    actor: str
    facts: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class RetentionAndHolds:
    """The result, as of the end of the window."""

    oldest_entry_at: str
    """Of the entries that are still there; empty in an empty log."""
    oldest_index: int
    floor: dict[str, JsonValue]
    """Facts of the newest `retention:set`; empty where no start has stated a floor."""
    living_holds: tuple[KeepingAct, ...]
    released_holds: int
    open_proposals: tuple[KeepingAct, ...]
    """Proposals that no second person has acted on."""
    prunings: tuple[KeepingAct, ...]
    acts_left_out: int
    findings: tuple[str, ...]


def retention_and_holds(entries: Iterable[Entry], scope: Scope, oldest: Entry | None) -> RetentionAndHolds:
    """Add up the acts until the end of the window; `entries` are all of `KEEPING_KINDS`."""
    holds: dict[int, KeepingAct] = {}
    proposals: dict[int, KeepingAct] = {}
    prunings = Rows[KeepingAct]([])
    floor: dict[str, JsonValue] = {}
    findings: list[str] = []
    released = 0
    approved: int | None = None
    for entry in entries:
        event = entry.leaf.event
        if event.ts_us >= scope.until_us:
            continue
        act = _act(entry)
        findings += _by_one(act)
        proposals.pop(int_fact(event.facts, "proposal_index"), None)
        match event.kind:
            case Kind.HOLD_PLACED.value:
                holds[entry.index] = act
            case Kind.HOLD_RELEASED.value:
                released += 1
                if holds.pop(int_fact(event.facts, "hold_index"), None) is None:
                    findings.append(f"entry {entry.index}: releases a hold that is not alive")
            case Kind.LOG_PRUNED.value:
                prunings.add(act)
                findings += _pruned_under_hold(act, holds.values())
            case Kind.RETENTION_SET.value:
                findings += _lowered_in_silence(act, floor, approved)
                floor, approved = act.facts, None
            case Kind.RETENTION_LOWERED.value:
                approved = entry.index
            case Kind.SUBJECT_ERASING.value:
                findings += _erased_under_hold(entry, holds.values())
            case kind if kind.endswith(":proposed"):
                proposals[entry.index] = act
    return RetentionAndHolds(
        oldest_entry_at="" if oldest is None else at(oldest),
        oldest_index=scope.size if oldest is None else oldest.index,
        floor=floor,
        living_holds=tuple(holds.values()),
        released_holds=released,
        open_proposals=tuple(proposals.values()),
        prunings=tuple(prunings.kept),
        acts_left_out=prunings.left_out,
        findings=cut(findings),
    )


def _act(entry: Entry) -> KeepingAct:
    event = entry.leaf.event
    facts = {name: value for name, value in event.facts.items() if name not in ("trust", "source", "key_id")}
    return KeepingAct(entry.index, at(entry), event.kind, event.actor, facts)


def _by_one(act: KeepingAct) -> Iterable[str]:
    if (proposer := text_fact(act.facts, "proposer")) and same_name(proposer, act.actor):
        yield f"entry {act.index}: {act.kind} was proposed and approved by {act.actor} alone"


def _lowered_in_silence(stated: KeepingAct, before: Mapping[str, JsonValue], approved: int | None) -> Iterable[str]:
    """Name a floor that is lower than the one before; `approved` is two people's word since that one."""
    clocks = ("leaf_days", "content_days")
    is_lower = any(int_fact(stated.facts, name) < int_fact(before, name) for name in clocks)
    if is_lower and (approved is None or stated.facts.get("exception_index") != approved):
        yield f"entry {stated.index}: states a lower floor than before, and two people had not approved it"


def _pruned_under_hold(pruning: KeepingAct, holds: Iterable[KeepingAct]) -> Iterable[str]:
    minimum = int_fact(pruning.facts, "minimum_index")
    for hold in holds:
        is_range = "held_from" in hold.facts
        if not is_range or int_fact(hold.facts, "held_from") < minimum:
            reason = text_fact(hold.facts, "reason")
            yield f"entry {pruning.index}: pruned below {minimum} while hold {hold.index} ({reason}) was alive"


def _erased_under_hold(entry: Entry, holds: Iterable[KeepingAct]) -> Iterable[str]:
    event = entry.leaf.event
    tenant = text_fact(event.facts, "subject_tenant")
    for hold in holds:
        subject = hold.facts.get("held_subject")
        reaches = isinstance(held_tenant := hold.facts.get("held_tenant"), str) and same_name(held_tenant, tenant)
        if reaches and (subject is None or same_name(str(subject), event.subject)):
            reason = text_fact(hold.facts, "reason")
            yield f"entry {entry.index}: an erasure of {event.subject} while hold {hold.index} ({reason}) was alive"
