"""The two routes of an evidence pack: leave to make one, and the record of what was made.

Invariants: `evidence:started` is durable before the caller may read a row; `evidence:made` names a head that this log
signed and a pack that the same principal was allowed, and each pack is recorded once.  The pack itself is made beside
the appliance, from files: nothing here reads more than the entries of the pack at hand.
"""

from __future__ import annotations

import json
from typing import Annotated, TypeVar

from pydantic import Field
from starlette.responses import JSONResponse, Response

from appliance.api.audit_log import read_after_record
from appliance.api.body import read_wire
from appliance.api.call import Call
from appliance.api.route_spec import RouteSpec
from appliance.api.wire import WireModel
from appliance.audit_trail import Kind
from appliance.errors import BadRequest, NotFound
from audit.errors import EntryNotFound
from audit.leaf import MAX_SAFE_INTEGER
from audit.reader import AuditReader, EntryFilter

W = TypeVar("W", bound=WireModel)
MAX_SAMPLE = 10_000
FREQUENT = frozenset({Kind.AUTH_REFUSED, Kind.KEYS_LISTED, Kind.LOG_READ})
"""With the requests, what may happen many times a second; of every other kind, each entry is proven singly."""
Number = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class EvidenceOrder(WireModel):
    """What a pack is to cover; the ranges are half-open."""

    from_index: Number = 0
    until_index: Number = MAX_SAFE_INTEGER
    from_us: Number = 0
    until_us: Number = MAX_SAFE_INTEGER
    seed: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Of the sample; by default the root of the tree."""
    sample_size: Annotated[int, Field(ge=0, le=MAX_SAMPLE)] = 25


class EvidenceMade(WireModel):
    """What was made."""

    index_sha256: Digest
    head_size: Number
    head_root: Digest
    num_records: Number
    num_files: Number


async def start_evidence(call: Call) -> Response:
    """`POST /audit/evidence`: record that a pack is about to be made, and say what it must show."""
    order = await _read(call, EvidenceOrder)
    await call.record(Kind.EVIDENCE_STARTED, call.request_id, order.model_dump())
    return JSONResponse(
        {
            "id": call.request_id,
            "started_index": call.receipts[-1].index,
            "always": [kind for kind in Kind if not kind.startswith("request:") and kind not in FREQUENT],
            "maker": call.principal.id,
            "trust": call.appliance.trust,
        }
    )


async def record_evidence(call: Call) -> Response:
    """`POST /audit/evidence/{id}/made`: record a pack's digest; the answer is the pack's seal."""
    made, pack_id = await _read(call, EvidenceMade), call.request.path_params["id"]
    await read_after_record(call, lambda reader: _check(reader, call, pack_id, made))
    await call.record(Kind.EVIDENCE_MADE, pack_id, made.model_dump())
    index = call.receipts[-1].index
    return Response(
        await read_after_record(call, lambda reader: _seal(reader, index, made.head_size)),
        media_type="application/json",
    )


async def _read(call: Call, model: type[W]) -> W:
    settings = call.appliance.settings
    return await read_wire(call.request, model, max_bytes=settings.max_body_bytes, deadline_s=settings.body_deadline_s)


def _check(reader: AuditReader, call: Call, pack_id: str, made: EvidenceMade) -> None:
    """Refuse what no allowed pack of this log can be."""
    started = reader.entries(EntryFilter(kind=Kind.EVIDENCE_STARTED, subject=pack_id), limit=1).entries
    principal = call.principal
    if not started or (started[0].leaf.event.tenant, started[0].leaf.event.actor) != (principal.tenant, principal.id):
        raise NotFound("no pack of yours was started under this id", code="evidence_not_found", param="id")
    if reader.entries(EntryFilter(kind=Kind.EVIDENCE_MADE, subject=pack_id), limit=1).entries:
        raise BadRequest("this pack has been recorded; make a new one", code="evidence_recorded", param="id")
    try:
        root = reader.checkpoint(made.head_size).checkpoint.root
    except EntryNotFound:
        root = b""
    if root.hex() != made.head_root or made.head_size <= started[0].index:
        raise BadRequest("this log signed no such head after the pack began", code="unknown_head", param="head_size")


def _seal(reader: AuditReader, index: int, head_size: int) -> bytes:
    proof = reader.proof(index)
    size = int(proof.checkpoint_note.split("\n")[1])
    seal = {
        "index": index,
        "leaf": reader.entry(index).leaf_bytes.decode(),
        "proof": proof.to_text(),
        "growth": [node.hex() for node in reader.subtrees(head_size, size)],
    }
    return json.dumps(seal, ensure_ascii=False).encode()


EVIDENCE_ROUTES = (
    RouteSpec("/audit/evidence", "POST", "makeEvidence", EvidenceOrder, start_evidence, "Begin an evidence pack"),
    RouteSpec(
        "/audit/evidence/{id}/made", "POST", "makeEvidence", EvidenceMade, record_evidence, "Record an evidence pack"
    ),
)
