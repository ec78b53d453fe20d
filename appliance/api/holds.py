"""Legal holds: placed by one person, released by two, listed for whoever decides what goes."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator
from starlette.responses import JSONResponse, Response

from appliance.api.audit_log import entry_index
from appliance.api.body import read_wire
from appliance.api.call import Call
from appliance.api.keeping_fields import EntryIndex, Name, Reason
from appliance.api.operations import rfc3339
from appliance.api.route_spec import RouteSpec
from appliance.api.wire import WireModel, refuse
from appliance.audit_trail import Kind
from appliance.errors import NotFound
from appliance.keeping.holds import (
    Hold,
    HoldScope,
    OnPerson,
    OnRange,
    OnTenant,
    Person,
    hold_facts,
    is_known,
    living_holds,
)
from appliance.two_person import TwoPersonAct, approval_facts, approving, propose, refused

RELEASE = TwoPersonAct("release_hold", Kind.HOLD_RELEASE_PROPOSED, Kind.HOLD_RELEASED, valid_for_s=7 * 24 * 3600)


class HoldRequest(WireModel):
    """The body: a subject, or a tenant alone, or a range of entries."""

    subject: Name | None = None
    tenant: Name | None = None
    """Of the subject: the officer's own when left out."""
    first: EntryIndex | None = None
    last: EntryIndex | None = None
    reason: Reason

    @model_validator(mode="after")
    def _one_scope(self) -> HoldRequest:
        is_range = self.first is not None or self.last is not None
        if is_range == (self.subject is not None or self.tenant is not None):
            raise refuse("names a subject, a tenant, or first and last")
        if is_range and (self.first is None or self.last is None or self.first > self.last):
            raise refuse("names first and last, first not above last")
        return self

    def scope(self, own_tenant: str) -> HoldScope:
        """Give what is to be held."""
        if self.first is not None and self.last is not None:
            return OnRange(self.first, self.last)
        if self.subject is not None:
            return OnPerson(Person(self.tenant or own_tenant, self.subject))
        assert self.tenant is not None, "the validator lets no other shape through"
        return OnTenant(self.tenant)


class ReasonRequest(WireModel):
    """A body that says why."""

    reason: Reason


async def place_hold(call: Call) -> Response:
    """`POST /audit/holds`: from this leaf on nothing that it reaches is erased or pruned."""
    settings = call.appliance.settings
    wire = await read_wire(
        call.request, HoldRequest, max_bytes=settings.max_body_bytes, deadline_s=settings.body_deadline_s
    )
    scope = wire.scope(call.principal.tenant)
    async with call.appliance.one_act_at_a_time:
        await call.record(Kind.HOLD_PLACED, call.request_id, hold_facts(scope, wire.reason))
    known = await call.appliance.read_log(lambda reader: is_known(reader, scope))
    return JSONResponse({"hold": call.receipts[-1].index, "on": str(scope), "known": known})


async def list_holds(call: Call) -> Response:
    """`GET /audit/holds`: every living hold."""
    await call.record(Kind.LOG_READ, call.request_id, {"outcome": "completed", "what": "holds"})
    holds = await call.appliance.read_log(living_holds)
    return JSONResponse({"object": "list", "data": [hold_body(hold) for hold in holds]})


async def propose_release(call: Call) -> Response:
    """`POST /audit/holds/{index}/release`: the first person's word."""
    settings = call.appliance.settings
    wire = await read_wire(
        call.request, ReasonRequest, max_bytes=settings.max_body_bytes, deadline_s=settings.body_deadline_s
    )
    hold = await _living_hold(call, entry_index(call))
    proposal = await propose(call, RELEASE, {"hold_index": hold.index}, wire.reason, {"hold_index": hold.index})
    return JSONResponse({"proposal": proposal, "hold": hold.index, "on": str(hold.scope)})


async def approve_release(call: Call) -> Response:
    """`POST /audit/releases/{index}/approve`: the second person's; the hold ends with this leaf."""
    async with approving(call, RELEASE, entry_index(call)) as proposal:
        index = proposal.terms.get("hold_index")
        hold = await _living_hold(call, index if isinstance(index, int) else -1)
        facts = {**approval_facts(proposal), "hold_index": hold.index}
        await call.record(Kind.HOLD_RELEASED, proposal.act_id, facts)
    return JSONResponse({"released": hold.index, "on": str(hold.scope)})


async def _living_hold(call: Call, index: int) -> Hold:
    for hold in await call.appliance.read_log(living_holds):
        if hold.index == index:
            return hold
    missing = NotFound("there is no living hold of this number", code="hold_not_found", param="index")
    raise await refused(call, RELEASE.name, missing, {"hold_index": index})


def hold_body(hold: Hold) -> dict[str, Any]:
    """Give one hold as the API shows it."""
    return {
        "hold": hold.index,
        "on": str(hold.scope),
        "reason": hold.reason,
        "placed_by": hold.placed_by,
        "placed_at": rfc3339(hold.at_us),
    }


HOLD_ROUTES = (
    RouteSpec("/audit/holds", "POST", "placeHold", HoldRequest, place_hold, "Place a legal hold"),
    RouteSpec("/audit/holds", "GET", "readRetention", None, list_holds, "List living holds"),
    RouteSpec(
        "/audit/holds/{index}/release", "POST", "proposeRelease", ReasonRequest, propose_release, "Propose a release"
    ),
    RouteSpec("/audit/releases/{index}/approve", "POST", "approveRelease", None, approve_release, "Approve a release"),
)
