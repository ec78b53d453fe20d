"""`POST /audit/erasures`: erase a person, and answer with the certificate.

Invariants: decided, done and recorded in the order of `keeping.erasure`; a caller who goes away stops nothing that was
decided; a refusal is recorded before it is spoken.
"""

from __future__ import annotations

import asyncio

import structlog
from starlette.responses import Response

from appliance.api.audit_log import JSON
from appliance.api.body import read_wire
from appliance.api.call import Call
from appliance.api.keeping_fields import Name, Reason
from appliance.api.route_spec import RouteSpec
from appliance.api.wire import WireModel
from appliance.audit_trail import Kind
from appliance.errors import Conflict, NotFound, Unavailable
from appliance.keeping.certificate import make_certificate
from appliance.keeping.erasure import (
    ErasedBefore,
    Held,
    MayErase,
    NeverKnown,
    OpenErasure,
    Verdict,
    erasing_facts,
    finish,
    may_erase,
    open_erasures,
    person_key,
    read_situation,
)
from appliance.keeping.holds import Person, named
from appliance.two_person import refused
from audit.errors import AuditError, AuditHalted
from audit.event import JsonValue
from audit.reader import AuditReader

LOG = structlog.get_logger("cloister.erasure")


class ErasureRequest(WireModel):
    """The body."""

    subject: Name
    tenant: Name | None = None
    """The officer's own when left out."""
    reason: Reason


async def erase_subject(call: Call) -> Response:
    """Destroy the keys of one person in one tenant; the answer is the certificate."""
    settings = call.appliance.settings
    wire = await read_wire(
        call.request, ErasureRequest, max_bytes=settings.max_body_bytes, deadline_s=settings.body_deadline_s
    )
    person = Person(wire.tenant or call.principal.tenant, wire.subject)
    index = await asyncio.shield(asyncio.create_task(_erase(call, person, wire.reason)))
    return Response(await call.appliance.read_log(lambda reader: _certificate(reader, index)), media_type=JSON)


async def _erase(call: Call, person: Person, reason: str) -> int:
    """Give the index of the leaf that says that this person is erased."""
    async with call.appliance.one_act_at_a_time:
        verdict = await _judge(call, person)
        if not isinstance(verdict, Held) and await _finish_what_was_decided(call, person):
            verdict = await _judge(call, person)
        match verdict:
            case MayErase(key_ids):
                await call.record(Kind.SUBJECT_ERASING, person.id, erasing_facts(person, key_ids, reason))
                return await _finish(call, OpenErasure(call.receipts[-1].index, person, key_ids))
            case ErasedBefore(index):
                await call.record(Kind.LOG_READ, call.request_id, {"what": "certificate", "index": index})
                return index
            case Held(holds):
                refusal = Conflict(
                    f"{named(holds)} beats erasure; release it first, which takes two people", code="under_hold"
                )
                held_by: dict[str, JsonValue] = {"held_by": [hold.index for hold in holds]}
                raise await refused(call, "erase", refusal, {**held_by, "subject_tenant": person.tenant})
            case NeverKnown():
                unknown = NotFound(
                    "no key was ever made for a subject of exactly this name in this tenant, so nothing can be "
                    "destroyed; see GET /audit/entries with actor and tenant",
                    code="subject_unknown",
                    param="subject",
                )
                raise await refused(call, "erase", unknown, {"subject_tenant": person.tenant})


async def _judge(call: Call, person: Person) -> Verdict:
    keys = await asyncio.to_thread(call.appliance.log.keyring.keys_of, person_key(person))
    return may_erase(keys, await call.appliance.read_log(lambda reader: read_situation(reader, person)))


async def _finish_what_was_decided(call: Call, person: Person) -> bool:
    """Tell whether there was any."""
    theirs = [one for one in await call.appliance.read_log(open_erasures) if one.person == person]
    for erasure in theirs:
        await _finish(call, erasure)
    return bool(theirs)


async def _finish(call: Call, erasure: OpenErasure) -> int:
    log = call.appliance.log
    try:
        receipt = await finish(log.trail, log.keyring, call.principal, erasure)
    except AuditHalted:
        raise
    except AuditError as failure:
        LOG.error(  # noqa: TRY400 - the reason is ours and whole
            "erasure_unfinished", erasing_index=erasure.index, error=type(failure).__name__, reason=str(failure)
        )
        raise Unavailable(
            f"the erasure of entry {erasure.index} is decided and not yet done: the operator must mend the subject "
            "keys' file; ask again then, or restart, which finishes it",
            code="erasure_unfinished",
        ) from failure
    call.receipts.append(receipt)
    return receipt.index


def _certificate(reader: AuditReader, index: int) -> bytes:
    return make_certificate(reader.entry(index).leaf_bytes, reader.proof(index))


ERASURE_ROUTES = (
    RouteSpec("/audit/erasures", "POST", "eraseSubject", ErasureRequest, erase_subject, "Erase a person"),
)
