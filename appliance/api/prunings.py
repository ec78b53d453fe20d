"""Prune: give up entries or sealed contents below an index, by two people, on a verified export of all of it.

Both steps ask everything again - the export's digest and signature, holds, retention - since a week may lie between
them.  The export lies in `CLOISTER_EXPORT_DIR`; a request names a folder there and never a path.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from starlette.responses import JSONResponse, Response

from appliance.api.audit_log import entry_index
from appliance.api.body import read_wire
from appliance.api.call import Call
from appliance.api.keeping_fields import EntryIndex, Reason
from appliance.api.retention import read_situation
from appliance.api.route_spec import RouteSpec
from appliance.api.wire import WireModel
from appliance.audit_trail import Kind
from appliance.errors import Conflict
from appliance.keeping.pruning import (
    ExportCheck,
    MustStay,
    PruneAsk,
    PruneVerdict,
    UnverifiedExport,
    VerifiedExport,
    check_export,
    may_prune,
)
from appliance.remembered import newest_approvals
from appliance.state.layout import StateLayout
from appliance.state.log_keys import own_verifiers
from appliance.two_person import TwoPersonAct, approval_facts, approving, propose, refused
from audit.event import Floor, JsonValue, Pruned
from audit.reader import AuditReader

PRUNE = TwoPersonAct("prune", Kind.PRUNE_PROPOSED, Kind.LOG_PRUNED, valid_for_s=7 * 24 * 3600)


class PruneRequest(WireModel):
    """The body."""

    what: Literal["content", "leaf"]
    below: EntryIndex
    export: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
    """Name of the folder in `CLOISTER_EXPORT_DIR`."""
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """That `cloister audit export` printed; so both people speak of the same copy."""
    reason: Reason


async def propose_pruning(call: Call) -> Response:
    """`POST /audit/prunings`: the first person's word."""
    settings = call.appliance.settings
    wire = await read_wire(
        call.request, PruneRequest, max_bytes=settings.max_body_bytes, deadline_s=settings.body_deadline_s
    )
    ask = PruneAsk(Pruned(wire.what), wire.below)
    await _require_prunable(call, ask, wire.export, wire.digest)
    terms: dict[str, JsonValue] = {
        "below": wire.below,
        "export": wire.export,
        "export_digest": wire.digest,
        "prune": wire.what,
    }
    proposal = await propose(call, PRUNE, terms, wire.reason, {})
    return JSONResponse({"proposal": proposal, "what": wire.what, "below": wire.below})


async def approve_pruning(call: Call) -> Response:
    """`POST /audit/prunings/{index}/approve`: the second person's; with this leaf it is done."""
    async with approving(call, PRUNE, entry_index(call)) as proposal:
        terms = proposal.terms
        below = terms.get("below")
        assert isinstance(below, int), f"entry {proposal.index} proposes to prune below no index"
        ask = PruneAsk(Pruned(str(terms.get("prune"))), below)
        await _require_prunable(call, ask, str(terms.get("export")), str(terms.get("export_digest")))
        facts = {"key_id": call.principal.key_id, "source": call.source, **approval_facts(proposal)}
        if ask.what is Pruned.LEAF:  # what a start compares itself with outlives the entries that said it
            facts["approvals"] = dict(await call.appliance.read_log(newest_approvals))
        floor = Floor(ask.what, ask.below)
        trail = call.appliance.trail
        call.receipts.append(await trail.prune(PRUNE.approved, call.principal, proposal.act_id, facts, floor))
    return JSONResponse({"pruned": ask.what.value, "below": ask.below})


async def _require_prunable(call: Call, ask: PruneAsk, export: str, digest: str) -> None:
    verdict = await _judge(call, ask, export, digest)
    if isinstance(verdict, MustStay):
        facts: dict[str, JsonValue] = {"below": ask.below, "export_digest": digest, "prune": ask.what.value}
        raise await refused(call, PRUNE.name, Conflict(verdict.why, code=verdict.code), facts)


async def _judge(call: Call, ask: PruneAsk, export: str, digest: str) -> PruneVerdict:
    """The cheap reasons first: nobody makes the appliance verify an export for what must stay anyway."""
    situation = await read_situation(call, ask.what)
    unseen = may_prune(ask, situation, VerifiedExport(digest, situation.size))
    if isinstance(unseen, MustStay):
        return unseen
    return may_prune(ask, situation, await _check_export(call, export, digest))


async def _check_export(call: Call, export: str, digest: str) -> ExportCheck:
    settings = call.appliance.settings
    if settings.export_dir is None:
        return UnverifiedExport("exports are looked for in CLOISTER_EXPORT_DIR, which is not set")
    folder, layout = settings.export_dir / export, StateLayout(settings.state_dir.resolve())

    def check(reader: AuditReader) -> ExportCheck:
        return check_export(reader, folder, own_verifiers(layout))

    found = await call.appliance.read_log(check)
    if isinstance(found, VerifiedExport) and found.digest != digest:
        return UnverifiedExport("the folder has another digest than the one given: it is another copy")
    return found


PRUNE_ROUTES = (
    RouteSpec("/audit/prunings", "POST", "proposePrune", PruneRequest, propose_pruning, "Propose to prune"),
    RouteSpec("/audit/prunings/{index}/approve", "POST", "approvePrune", None, approve_pruning, "Approve a pruning"),
)
