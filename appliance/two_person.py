"""Acts that need two people: one proposes, another approves, and the log's leaves alone say how far an act is.

An act is a pair of kinds.  The proposal's leaf states the terms and is the act's number; the approval's leaf has the
same subject, names the proposal by its index and repeats the terms, so nobody approves what he did not see.

Laws, which no policy can lift: the second is another person than the first, whatever the spelling of the name and in
whatever tenant, with another key; both are people, not services; where an act names two roles, one of the two brings
the one and the other the other; a proposal is approved once, within its time, and never after it was taken up.  A clock
that is set back opens nothing again: what any later leaf of the log has seen is past.  The word of a key that has
ended, or was taken from its owner, counts no more.

`judge` is pure and has types as outcomes.  `proposing` and `approving` are the shell: one act at a time in this
process, the judgement and the leaf that follows it undivided, a refusal recorded before it is spoken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from appliance.audit_trail import Kind
from appliance.errors import ApplianceError, Conflict, Forbidden, NotFound
from appliance.identity.principal import Principal
from appliance.keeping.names import same_name
from audit.entry import Entry
from audit.errors import EntryNotFound
from audit.event import JsonValue
from audit.reader import AuditReader, EntryFilter
from audit.search.expression import And, Within
from audit.search.fields import RANGE_END

if TYPE_CHECKING:
    from appliance.api.call import Call

PEOPLE = "User"
MAX_STEPS = 100
"""Leaves of one act: its proposal, its approval, and what was done on it."""


@dataclass(frozen=True, slots=True)
class TwoPersonAct:
    """One kind of act."""

    name: str
    """A stable word for the records, e.g. `unseal`."""
    proposed: Kind
    approved: Kind
    """The leaf that approves a proposal and takes it up for good."""
    valid_for_s: int
    """A proposal that is older can no longer be approved."""
    one_role_each: tuple[str, str] | None = None
    """Two roles of which the two people bring one each; None where policy alone says who."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What was proposed, by whom and when."""

    index: int
    act_id: str
    """Subject of every leaf of this act."""
    at_us: int
    proposer: Principal
    terms: Mapping[str, JsonValue]
    reason: str


@dataclass(frozen=True, slots=True)
class Approvable:
    """The second person may approve it now."""

    proposal: Proposal


@dataclass(frozen=True, slots=True)
class NotApprovable:
    """Why not; `is_forbidden` where asking again by the same person can never help."""

    code: str
    why: str
    is_forbidden: bool = False


Judgement: TypeAlias = "Approvable | NotApprovable"


def proposal_facts(principal: Principal, terms: Mapping[str, JsonValue], reason: str) -> dict[str, JsonValue]:
    """Give the facts that every proposal has; the log's own facts hold the rest of who proposed."""
    return {"proposer_kind": principal.kind, "reason": reason, "terms": terms}


def approval_facts(proposal: Proposal) -> dict[str, JsonValue]:
    """Give the facts that every approval has."""
    return {
        "proposal_index": proposal.index,
        "proposer": proposal.proposer.id,
        "reason": proposal.reason,
        "terms": proposal.terms,
    }


def read_proposal(entry: Entry) -> Proposal:
    """Give the proposal of a leaf of an act's first kind."""
    event = entry.leaf.event
    facts = event.facts
    terms = facts.get("terms")
    proposer = Principal(
        id=event.actor,
        kind="User" if facts.get("proposer_kind") == PEOPLE else "Service",
        tenant=event.tenant,
        roles=tuple(event.role.split(",")) if event.role else (),
        clearance=0,
        key_id=str(facts.get("key_id", "")),
    )
    return Proposal(
        index=entry.index,
        act_id=event.subject,
        at_us=event.ts_us,
        proposer=proposer,
        terms=terms if isinstance(terms, Mapping) else {},
        reason=str(facts.get("reason", "")),
    )


def judge(
    act: TwoPersonAct, steps: Sequence[Entry], second: Principal, now_us: int, *, first_key_lives: bool
) -> Judgement:
    """Say whether `second` may approve; `steps` are the leaves of the act, the proposal first.

    Order of the reasons: who asks, before what became of the proposal, so that nobody learns by trying.
    """
    proposal = read_proposal(steps[0])
    who = _unfit(act, proposal.proposer, second)
    if who is not None:
        return who
    if any(step.leaf.event.kind == act.approved.value for step in steps[1:]):
        return NotApprovable("proposal_taken_up", "the proposal was approved before; propose again")
    if not 0 <= now_us - proposal.at_us < act.valid_for_s * 1_000_000:
        return NotApprovable("proposal_expired", f"a proposal holds for {act.valid_for_s} s; propose again")
    if not first_key_lives:
        return NotApprovable("key_ended", "the key that proposed has ended or was revoked; propose again")
    return Approvable(proposal)


def _unfit(act: TwoPersonAct, first: Principal, second: Principal) -> NotApprovable | None:
    if first.kind != PEOPLE or second.kind != PEOPLE:
        return NotApprovable("not_a_person", "both must be people; a service's key is nobody's word", is_forbidden=True)
    if same_name(first.id, second.id) or first.key_id == second.key_id:
        return NotApprovable("same_person", "another person must approve, with a key of that person", is_forbidden=True)
    if act.one_role_each is not None and not _bring_both(act.one_role_each, first.roles, second.roles):
        pair = " and the other ".join(act.one_role_each)
        return NotApprovable("roles_missing", f"of the two people one must be {pair}", is_forbidden=True)
    return None


def _bring_both(roles: tuple[str, str], first: Sequence[str], second: Sequence[str]) -> bool:
    one, other = roles
    return (one in first and other in second) or (other in first and one in second)


def steps_of(reader: AuditReader, act: TwoPersonAct, index: int) -> tuple[Entry, ...]:
    """Read every leaf of the act whose proposal stands at `index`, the proposal first.

    Raises:
        EntryNotFound: no proposal of this kind of act stands there.
        AuditCorrupt: a leaf of it is not one that this log signed: whoever masters the database is no second person.
    """
    proposed = reader.entry(index)
    if proposed.leaf.event.kind != act.proposed.value:
        raise EntryNotFound(f"entry {index} is no {act.proposed.value}")
    later = reader.entries(EntryFilter(subject=proposed.leaf.event.subject), after=index, limit=MAX_STEPS)
    steps = (proposed, *later.entries)
    reader.require_proven(*steps)
    return steps


def latest_us(reader: AuditReader, index: int, valid_for_s: int, clock_us: int) -> int:
    """Give the time that decides whether what the leaf at `index` began still holds.

    The clock's, or the end of what began where a later leaf has seen it: a clock can be set back, the log cannot.
    """
    end_us = reader.entry(index).leaf.event.ts_us + valid_for_s * 1_000_000
    later = And((Within("time", end_us, RANGE_END), Within("index", index + 1, RANGE_END)))
    return max(clock_us, end_us) if next(reader.walk(later), None) is not None else clock_us


async def key_lives(call: Call, key_id: str) -> bool:
    """Whether a key could be used now."""
    record = await asyncio.to_thread(call.appliance.keys.find, key_id)
    now_us = call.appliance.trail.clock.utc_us()
    return record is not None and record.revoked_at_us is None and now_us < record.expires_at_us


async def propose(
    call: Call, act: TwoPersonAct, terms: Mapping[str, JsonValue], reason: str, facts: Mapping[str, JsonValue]
) -> int:
    """Record a proposal under a new act id; return its index.

    Raises:
        Forbidden: a service cannot propose; recorded.
        audit.errors.AuditError: not recorded, so not proposed.
    """
    if call.principal.kind != PEOPLE:
        raise await refused(call, act.name, Forbidden("a person must propose this", code="not_a_person"))
    await call.record(act.proposed, call.request_id, {**facts, **proposal_facts(call.principal, terms, reason)})
    return call.receipts[-1].index


@asynccontextmanager
async def approving(call: Call, act: TwoPersonAct, index: int) -> AsyncIterator[Proposal]:
    """Give the proposal to whoever may approve it, undisturbed until the block ends.

    The block owes the leaf `act.approved`, with `approval_facts` and the act's id as its subject, before anything is
    done.  Until that leaf is durable the proposal stands as it was.

    Raises:
        Forbidden, Conflict: refused; recorded.
        NotFound: there is no such proposal.
    """
    async with call.appliance.one_act_at_a_time:
        try:
            steps = await call.appliance.read_log(lambda reader: steps_of(reader, act, index))
        except EntryNotFound:
            raise NotFound("there is no such proposal", code="proposal_not_found", param="index") from None
        clock_us = call.appliance.trail.clock.utc_us()
        now_us = await call.appliance.read_log(lambda reader: latest_us(reader, index, act.valid_for_s, clock_us))
        first_key_lives = await key_lives(call, read_proposal(steps[0]).proposer.key_id)
        judged = judge(act, steps, call.principal, now_us, first_key_lives=first_key_lives)
        if isinstance(judged, NotApprovable):
            error = Forbidden if judged.is_forbidden else Conflict
            raise await refused(call, act.name, error(judged.why, code=judged.code), {"proposal_index": index})
        yield judged.proposal


async def refused(
    call: Call, act: str, refusal: ApplianceError, facts: Mapping[str, JsonValue] | None = None
) -> ApplianceError:
    """Record that an act was refused, and give the refusal back to be raised.

    Raises:
        audit.errors.AuditError: not recorded; this is the answer then.
    """
    said: dict[str, JsonValue] = {"act": act, "code": refusal.code, "outcome": "refused", **(facts or {})}
    await call.record(Kind.ACT_REFUSED, call.request_id, said)
    return refusal
