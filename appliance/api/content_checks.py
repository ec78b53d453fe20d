"""`POST /audit/entries/{index}/check`: whether a text is the one that an entry commits to.

Each check leaves its record with its outcome before it is answered: who has the right to check could try out guesses,
and whoever reads the log sees every one.  The text itself is neither kept nor logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.responses import JSONResponse, Response

from appliance.api.audit_log import entry_index
from appliance.api.body import read_wire
from appliance.api.call import Call
from appliance.api.content_forms import Phase, committed_forms
from appliance.api.route_spec import RouteSpec
from appliance.api.wire import WireModel
from appliance.audit_trail import Kind
from appliance.errors import Conflict, NotFound
from audit.entry import Entry
from audit.errors import SubjectErased
from audit.event import JsonValue
from audit.subject_keys.commitment import Commitment


class ContentCheckRequest(WireModel):
    """The body."""

    phase: Phase
    text: str


async def check_content(call: Call) -> Response:
    """Say whether the text is what the entry's commitment was made over, and in which form."""
    settings = call.appliance.settings
    wire = await read_wire(
        call.request, ContentCheckRequest, max_bytes=settings.max_body_bytes, deadline_s=settings.body_deadline_s
    )
    index = entry_index(call)
    entry = await call.appliance.read_log(lambda reader: reader.entry(index))
    asked: dict[str, JsonValue] = {"index": index, "phase": wire.phase}
    commitment = _commitment(entry, wire.phase)
    if commitment is None:
        await call.record(Kind.CONTENT_CHECKED, call.request_id, {**asked, "outcome": "no_commitment"})
        raise NotFound(f"entry {index} commits to no {wire.phase}", code="commitment_not_found", param="phase")
    try:
        form = await asyncio.to_thread(_matching_form, call, entry, commitment, wire)
    except SubjectErased as erased:
        await call.record(Kind.CONTENT_CHECKED, call.request_id, {**asked, "outcome": "subject_erased"})
        raise Conflict(
            f"SubjectErased: key {erased.key_id} was destroyed; nobody can tell any more", code="subject_erased"
        ) from erased
    outcome = "no_match" if form is None else "match"
    await call.record(Kind.CONTENT_CHECKED, call.request_id, {**asked, "form": form, "outcome": outcome})
    return JSONResponse({"index": index, "phase": wire.phase, "matches": form is not None, "form": form})


def _matching_form(call: Call, entry: Entry, commitment: Commitment, wire: ContentCheckRequest) -> str | None:
    keyring, request_id = call.appliance.log.keyring, entry.leaf.event.subject
    for form, content in committed_forms(wire.phase, wire.text):
        if keyring.check(commitment, request_id, wire.phase, content):
            return form
    return None


def _commitment(entry: Entry, phase: Phase) -> Commitment | None:
    made = entry.leaf.event.facts.get("commitments")
    one = made.get(phase) if isinstance(made, Mapping) else None
    if not isinstance(one, Mapping):
        return None
    return Commitment(str(one.get("key_id")), str(one.get("hmac")))


CONTENT_CHECK_ROUTES = (
    RouteSpec(
        "/audit/entries/{index}/check",
        "POST",
        "checkContent",
        ContentCheckRequest,
        check_content,
        "Check a text against its commitment",
    ),
)
