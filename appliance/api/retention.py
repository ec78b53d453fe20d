"""What is kept and for how long: the floor, the holds, what could go; and the two people who lower the floor."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field
from starlette.responses import JSONResponse, Response

from appliance.api.audit_log import entry_index
from appliance.api.body import read_wire
from appliance.api.call import Call
from appliance.api.holds import hold_body
from appliance.api.keeping_fields import Reason
from appliance.api.route_spec import RouteSpec
from appliance.api.wire import WireModel, refuse
from appliance.audit_trail import Kind
from appliance.keeping.pruning import PruneSituation, prunable_below, read_prune_situation
from appliance.keeping.retention_profiles import floor_of, read_profiles
from appliance.two_person import TwoPersonAct, approval_facts, approving, propose
from audit.event import Pruned
from audit.reader import AuditReader

LOWER = TwoPersonAct(
    "lower_retention", Kind.RETENTION_CHANGE_PROPOSED, Kind.RETENTION_LOWERED, valid_for_s=7 * 24 * 3600
)


def _known(name: str) -> str:
    if name not in read_profiles():
        raise refuse(f"names no profile; there are {', '.join(read_profiles())}")
    return name


class RetentionChange(WireModel):
    """The body."""

    profiles: Annotated[list[Annotated[str, AfterValidator(_known)]], Field(min_length=1, max_length=16)]
    reason: Reason


async def show_retention(call: Call) -> Response:
    """`GET /audit/retention`: the floor in force, the holds, and below which index what could go."""
    await call.record(Kind.LOG_READ, call.request_id, {"outcome": "completed", "what": "retention"})
    floor = call.appliance.retention
    situations = {what: await read_situation(call, what) for what in Pruned}
    holds = situations[Pruned.LEAF].holds
    return JSONResponse(
        {
            "floor": {"leaf_days": floor.leaf_days, "content_days": floor.content_days},
            "profiles": [_profile_body(name) for name in floor.profiles],
            "holds": [hold_body(hold) for hold in holds],
            "log_size": situations[Pruned.LEAF].size,
            **{what.value: _clock_body(what, situation) for what, situation in situations.items()},
        }
    )


async def propose_retention(call: Call) -> Response:
    """`POST /audit/retention/lower`: the first person's word for a shorter floor."""
    settings = call.appliance.settings
    wire = await read_wire(
        call.request, RetentionChange, max_bytes=settings.max_body_bytes, deadline_s=settings.body_deadline_s
    )
    floor = floor_of(wire.profiles).facts()
    proposal = await propose(call, LOWER, floor, wire.reason, floor)
    return JSONResponse({"proposal": proposal, **floor})


async def approve_retention(call: Call) -> Response:
    """`POST /audit/retention/{index}/approve`: the second person's; the next start may state the shorter floor."""
    async with approving(call, LOWER, entry_index(call)) as proposal:
        await call.record(Kind.RETENTION_LOWERED, proposal.act_id, {**approval_facts(proposal), **proposal.terms})
    return JSONResponse({"approved": proposal.index, **proposal.terms})


async def read_situation(call: Call, what: Pruned) -> PruneSituation:
    """Read what pruning rests on, as of now."""
    floor, now_us = call.appliance.retention, call.appliance.trail.clock.utc_us()

    def key_lives(key_id: str) -> bool:
        record = call.appliance.keys.find(key_id)
        return record is not None and record.expires_at_us > now_us

    def read(reader: AuditReader) -> PruneSituation:
        return read_prune_situation(reader, what, floor, now_us, key_lives)

    return await call.appliance.read_log(read)


def _clock_body(what: Pruned, situation: PruneSituation) -> dict[str, Any]:
    return {
        "pruned_below": situation.pruned_below,
        "old_enough_below": situation.young_from,
        "prunable_below": max(situation.pruned_below, prunable_below(what, situation)),
    }


def _profile_body(name: str) -> dict[str, Any]:
    profile = read_profiles()[name]
    return {"name": name, "title": profile.title, "at_hand_days": profile.at_hand_days, "says": profile.says}


RETENTION_ROUTES = (
    RouteSpec("/audit/retention", "GET", "readRetention", None, show_retention, "What is kept, and how long"),
    RouteSpec(
        "/audit/retention/lower",
        "POST",
        "proposeRetention",
        RetentionChange,
        propose_retention,
        "Propose a lower floor",
    ),
    RouteSpec(
        "/audit/retention/{index}/approve", "POST", "approveRetention", None, approve_retention, "Approve a lower floor"
    ),
)
