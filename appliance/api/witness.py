"""`POST /add-checkpoint`: C2SP tlog-witness, for the logs that the operator named.

The protocol itself has no credentials; here every route has, so a log comes with a key whose role is `peer`, which
allows this one call.  Statuses and the body of a 409 are the protocol's, every other refusal has our own form.
"""

from __future__ import annotations

import asyncio

import structlog
from starlette.responses import Response

from appliance.api.body import read_body
from appliance.api.call import Call
from appliance.api.route_spec import RouteSpec
from appliance.audit_trail import Kind
from appliance.errors import ApplianceError, BadRequest, Forbidden, Inconsistent, NotFound, Unavailable
from audit.anchoring.submission import MAX_SUBMISSION_BYTES, SIZE_TYPE
from audit.anchoring.witness import Cosigned, RefusalKind, WitnessRefused

LOG = structlog.get_logger("cloister.witness")


async def add_checkpoint(call: Call) -> Response:
    """Answer with the cosignature line once the head is recorded and flushed."""
    witnessing = call.appliance.witnessing
    if witnessing is None:
        raise NotFound("this appliance witnesses no log; see CLOISTER_WITNESS_LOGS", code="witness_disabled")
    deadline_s = call.appliance.settings.body_deadline_s
    body = await read_body(call.request, max_bytes=MAX_SUBMISSION_BYTES, deadline_s=deadline_s)
    try:
        text = body.decode()
    except UnicodeDecodeError as failure:
        raise BadRequest(f"the body is not UTF-8 at byte {failure.start}", code="invalid_utf8") from None
    try:
        cosigned = await asyncio.to_thread(witnessing.witness.add_checkpoint, text)
    except WitnessRefused as refusal:
        return await _refused(call, refusal)
    except OSError as failure:
        LOG.error("witness_state_unusable", reason=str(failure))  # noqa: TRY400 - the reason is the machine's and whole
        raise Unavailable("the witness's state cannot be written now", code="witness_not_ready") from failure
    await _enroll(call, cosigned)
    return Response(cosigned.cosignature.line, media_type="text/plain")


async def _enroll(call: Call, cosigned: Cosigned) -> None:
    """Record the first head of a log: from then on a state that is missing is a loss and no beginning."""
    witnessing = call.appliance.witnessing
    assert witnessing is not None, "a head was cosigned by no witness"
    origin = cosigned.checkpoint.origin
    if origin not in witnessing.enrolled:
        await call.record(Kind.WITNESS_ENROLLED, origin, {"size": cosigned.checkpoint.size})
        witnessing.enrolled.add(origin)


async def _refused(call: Call, refusal: WitnessRefused) -> Response:
    if refusal.new_evidence and refusal.head is not None:
        LOG.error("log_forked", origin=refusal.head.origin, size=refusal.head.size, evidence=refusal.new_evidence)
        facts = {
            "code": refusal.kind.value,
            "size": refusal.head.size,
            "root": refusal.head.root.hex(),
            "cosigned_size": refusal.size,
            "evidence": refusal.new_evidence,
        }
        await call.record(Kind.WITNESS_REFUSED, refusal.head.origin, facts)
    if refusal.kind in (RefusalKind.OTHER_SIZE, RefusalKind.OTHER_ROOT):
        return Response(f"{refusal.size}\n", status_code=409, headers={"content-type": SIZE_TYPE})
    raise _in_our_form(refusal)


def _in_our_form(refusal: WitnessRefused) -> ApplianceError:
    match refusal.kind:
        case RefusalKind.MALFORMED:
            return BadRequest(refusal.what, code="malformed_submission")
        case RefusalKind.UNKNOWN_LOG:
            return NotFound("this log is not one of those cosigned here", code="unknown_log")
        case RefusalKind.UNSIGNED:
            return Forbidden(refusal.what, code="log_signature_refused")
        case RefusalKind.INCONSISTENT:
            return Inconsistent(refusal.what, code="inconsistent_checkpoint")
    LOG.error("witness_not_ready", reason=str(refusal))
    return Unavailable("the witness cannot cosign now; its operator's log says why", code="witness_not_ready")


WITNESS_ROUTES = (
    RouteSpec("/add-checkpoint", "POST", "addCheckpoint", None, add_checkpoint, "Cosign the head of another log"),
)
