"""Unseal what lies beside an entry: proposed by one, approved by another, shown once to the one who proposed.

Of the two one is an auditor and the other a privacy officer, in either order.  Each step is a leaf, the last one before
a byte is read.  What is shown is neither logged nor stored anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.responses import JSONResponse, Response

from appliance.api.audit_log import entry_index
from appliance.api.body import read_wire
from appliance.api.call import Call
from appliance.api.holds import ReasonRequest
from appliance.api.route_spec import RouteSpec
from appliance.audit_trail import Kind
from appliance.errors import Conflict, Forbidden, NotFound
from appliance.identity.principal import Principal
from appliance.two_person import (
    Proposal,
    TwoPersonAct,
    approval_facts,
    approving,
    key_lives,
    latest_us,
    propose,
    read_proposal,
    refused,
    steps_of,
)
from audit.entry import Entry
from audit.errors import EntryNotFound, SubjectErased
from audit.event import JsonValue
from audit.reader import AuditReader

UNSEAL = TwoPersonAct(
    "unseal",
    Kind.UNSEAL_PROPOSED,
    Kind.UNSEAL_APPROVED,
    valid_for_s=24 * 3600,
    one_role_each=("auditor", "privacy"),
)
SHOWN_WITHIN_S = 15 * 60
"""From the approval on."""


@dataclass(frozen=True, slots=True)
class Showable:
    """The content may be shown now, once."""

    proposal: Proposal
    index: int
    """Of the entry beside which it lies."""
    approved_at: int


@dataclass(frozen=True, slots=True)
class NotShowable:
    """Why not."""

    code: str
    why: str
    is_forbidden: bool = False


def judge_showing(
    steps: Sequence[Entry], asking: Principal, now_us: int, *, second_key_lives: bool
) -> Showable | NotShowable:
    """Say whether the content may be shown to whoever asks; pure."""
    proposal = read_proposal(steps[0])
    if (proposal.proposer.tenant, proposal.proposer.id) != (asking.tenant, asking.id):
        return NotShowable("not_the_proposer", "it is shown to the person who proposed it alone", is_forbidden=True)
    approval = approval_of(steps)
    if approval is None:
        return NotShowable("not_approved", "a second person has not approved it yet")
    if any(step.leaf.event.kind == Kind.CONTENT_SHOWN.value for step in steps):
        return NotShowable("shown_before", "it was shown once; propose again")
    if not 0 <= now_us - approval.leaf.event.ts_us < SHOWN_WITHIN_S * 1_000_000:
        return NotShowable("approval_expired", f"an approval holds for {SHOWN_WITHIN_S} s; propose again")
    if not second_key_lives:
        return NotShowable("key_ended", "the key that approved has ended or was revoked; propose again")
    index = proposal.terms.get("index")
    assert isinstance(index, int), f"entry {proposal.index} proposes to unseal no entry"
    return Showable(proposal, index, approval.index)


def approval_of(steps: Sequence[Entry]) -> Entry | None:
    """Give the second person's leaf."""
    return next((step for step in steps if step.leaf.event.kind == UNSEAL.approved.value), None)


async def propose_unsealing(call: Call) -> Response:
    """`POST /audit/entries/{index}/unseal`: the first person's word, with a reason."""
    settings = call.appliance.settings
    wire = await read_wire(
        call.request, ReasonRequest, max_bytes=settings.max_body_bytes, deadline_s=settings.body_deadline_s
    )
    index = entry_index(call)
    phases = _phases(await call.appliance.read_log(lambda reader: reader.entry(index)))
    if not phases:
        nothing = NotFound(f"nothing is sealed beside entry {index}", code="content_not_found", param="index")
        raise await refused(call, UNSEAL.name, nothing, {"index": index})
    facts: dict[str, JsonValue] = {"index": index, "phases": phases}
    proposal = await propose(call, UNSEAL, facts, wire.reason, facts)
    return JSONResponse({"proposal": proposal, "index": index, "phases": phases})


async def approve_unsealing(call: Call) -> Response:
    """`POST /audit/unsealings/{index}/approve`: the second person's."""
    async with approving(call, UNSEAL, entry_index(call)) as proposal:
        await call.record(UNSEAL.approved, proposal.act_id, {**approval_facts(proposal), **proposal.terms})
    return JSONResponse(
        {"approved": proposal.index, "index": proposal.terms.get("index"), "shown_within_s": SHOWN_WITHIN_S}
    )


async def show_unsealed(call: Call) -> Response:
    """`POST /audit/unsealings/{index}/show`: the content, once, to the one who proposed."""
    index = entry_index(call)
    try:
        unsealed, contents = await _use_up(call, index, None, {})
    except SubjectErased as erased:
        raise Conflict(
            f"SubjectErased: key {erased.key_id} was destroyed; nobody reads this any more", code="subject_erased"
        ) from erased
    return JSONResponse({"index": unsealed, "contents": contents}, headers={"cache-control": "no-store"})


async def take_unsealed(call: Call, index: int, of_entry: int, *, used_for: str) -> dict[str, str]:
    """Open what an approved proposal is about, for a use of the appliance's own; it uses the approval up as a showing.

    Args:
        call: of the one who proposed.
        index: of the proposal.
        of_entry: the entry beside which the content must lie.
        used_for: stands in the record, in place of a showing.

    Raises:
        Forbidden, Conflict, NotFound: as a showing is refused.
        SubjectErased: nobody reads this any more.
    """
    _, contents = await _use_up(call, index, of_entry, {"used_for": used_for})
    return contents


async def _use_up(
    call: Call, index: int, of_entry: int | None, said: Mapping[str, JsonValue]
) -> tuple[int, dict[str, str]]:
    """Record the opening, then open; give the entry's index and the content of each phase."""
    async with call.appliance.one_act_at_a_time:
        try:
            steps = await call.appliance.read_log(lambda reader: steps_of(reader, UNSEAL, index))
        except EntryNotFound:
            raise NotFound("there is no such proposal", code="proposal_not_found", param="index") from None
        judged = await _judge_now(call, steps)
        if isinstance(judged, NotShowable):
            error = Forbidden if judged.is_forbidden else Conflict
            raise await refused(call, UNSEAL.name, error(judged.why, code=judged.code), {"proposal_index": index})
        if of_entry is not None and of_entry != judged.index:
            other = Conflict(f"the proposal is about entry {judged.index}", code="another_entry", param="unsealing")
            raise await refused(call, UNSEAL.name, other, {"proposal_index": index})
        facts: dict[str, JsonValue] = {"approval_index": judged.approved_at, "proposal_index": index, **said}
        await call.record(Kind.CONTENT_SHOWN, judged.proposal.act_id, {**facts, **judged.proposal.terms})
    return judged.index, await call.appliance.read_log(lambda reader: _unsealed(call, reader, judged.index))


async def _judge_now(call: Call, steps: Sequence[Entry]) -> Showable | NotShowable:
    clock_us, approval = call.appliance.trail.clock.utc_us(), approval_of(steps)
    if approval is None:
        return judge_showing(steps, call.principal, clock_us, second_key_lives=False)
    now_us = await call.appliance.read_log(lambda reader: latest_us(reader, approval.index, SHOWN_WITHIN_S, clock_us))
    second_key_lives = await key_lives(call, str(approval.leaf.event.facts.get("key_id", "")))
    return judge_showing(steps, call.principal, now_us, second_key_lives=second_key_lives)


def _unsealed(call: Call, reader: AuditReader, index: int) -> dict[str, str]:
    entry = reader.entry(index)
    contents: dict[str, str] = {}
    for phase in _phases(entry):
        stored = reader.content(index, phase)
        if stored is None:
            raise NotFound(f"the content beside entry {index} was pruned", code="content_not_found", param="index")
        content = call.appliance.trail.unsealed(stored, entry.leaf.event.subject)
        contents[phase] = content.decode(errors="surrogatepass")
    return contents


def _phases(entry: Entry) -> list[str]:
    said = entry.leaf.event.facts.get("contents")
    return sorted(said) if isinstance(said, Mapping) else []


UNSEAL_ROUTES = (
    RouteSpec(
        "/audit/entries/{index}/unseal", "POST", "proposeUnseal", ReasonRequest, propose_unsealing, "Propose to unseal"
    ),
    RouteSpec(
        "/audit/unsealings/{index}/approve", "POST", "approveUnseal", None, approve_unsealing, "Approve an unsealing"
    ),
    RouteSpec("/audit/unsealings/{index}/show", "POST", "readUnsealed", None, show_unsealed, "Show it, once"),
)
