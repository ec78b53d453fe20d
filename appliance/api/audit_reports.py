"""`POST /audit/reports/{id}` and `POST /audit/reviews`: what an auditor has made, and what an auditor signs.

A run leaves two records: `report:run` with the digest of its query before a row is read, and `report:made` with the
digest of the result before it is shown.  A crash between the two leaves the first, so no run is hidden, and the log
says that nobody was shown its result.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from starlette.responses import JSONResponse, Response

from appliance.api.audit_counts import one_long_reading
from appliance.api.audit_log import JSON, read_after_record
from appliance.api.body import read_wire
from appliance.api.call import Call
from appliance.api.keeping_fields import EntryIndex, Name
from appliance.api.route_spec import RouteSpec
from appliance.api.wire import WireModel, refuse
from appliance.audit_trail import Kind
from appliance.errors import BadRequest, NotFound
from appliance.reports.document import document_of, query_of
from appliance.reports.recreation import MAX_SAMPLE
from appliance.reports.registry import DEFAULT_SAMPLE, REPORTS, Parameters, ReportSpec
from appliance.reports.report_file import report_file
from appliance.reports.source import ReportSource
from appliance.reports.verifying import verify_for_report
from appliance.state.layout import StateLayout
from audit.canonical import digest_of
from audit.errors import EntryNotFound
from audit.event import JsonValue
from audit.reader import AuditReader
from audit.search.moments import moment

MAX_MOMENT_CHARACTERS, MAX_NOTES_CHARACTERS, MAX_EXAMINED = 40, 4_096, 64
MAX_SEED = 2**53 - 1


def _is_moment(text: str) -> str:
    try:
        moment(text)
    except ValueError as error:
        raise refuse(str(error)) from error
    return text


Moment = Annotated[str, Field(max_length=MAX_MOMENT_CHARACTERS), AfterValidator(_is_moment)]
"""A time as filters have it."""


class ReportRequest(WireModel):
    """The body; a parameter that the report does not take is refused."""

    from_: Annotated[Moment | None, Field(alias="from")] = None
    """From the beginning of this; by default from the log's."""
    to: Moment | None = None
    """To the end of this; by default until now."""
    subject: Name | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    """By default the appliance draws one, and records it before it looks."""
    sample: Annotated[int, Field(ge=1, le=MAX_SAMPLE)] | None = None


class ReviewRequest(WireModel):
    """The body."""

    from_: Annotated[Moment, Field(alias="from")]
    to: Moment
    """To the end of this."""
    outcome: Literal["no_findings", "findings"]
    notes: Annotated[str, Field(max_length=MAX_NOTES_CHARACTERS)]
    """Their digest is recorded,"""
    keep_notes: bool = False
    """and if so the notes themselves, for good."""
    examined: Annotated[list[EntryIndex], Field(max_length=MAX_EXAMINED, default_factory=list)]
    """Indexes of the `report:made` entries that were examined."""


async def run_report(call: Call) -> Response:
    """Record, read, record, answer with the report's file."""
    spec = REPORTS.get(call.request.path_params["id"])
    if spec is None:
        raise NotFound(f"there is no such report; those are {', '.join(REPORTS)}", code="report_not_found", param="id")
    settings = call.appliance.settings
    wire = await read_wire(
        call.request, ReportRequest, max_bytes=settings.max_body_bytes, deadline_s=settings.body_deadline_s
    )
    parameters = _parameters(spec, wire)
    from_us, until_us = _window(call, wire.from_, wire.to)
    query = query_of(spec, from_us, until_us, parameters)
    async with one_long_reading(call):
        asked: dict[str, JsonValue] = {"report": spec.id, "query": query, "query_sha256": digest_of(query)}
        await call.record(Kind.REPORT_RUN, call.request_id, asked)
        run_index = call.receipts[-1].index

        def make(reader: AuditReader) -> dict[str, Any]:
            source = _source(call, reader, run_index + 1)
            result = spec.make(source, source.scope(from_us, until_us, parameters.subject), parameters)
            return document_of(spec, query, call.appliance.log_origin, run_index + 1, result)

        document = await read_after_record(call, make)
        made: dict[str, JsonValue] = {
            "document_sha256": digest_of(document),
            "num_findings": len(document["result"]["findings"]),
            "outcome": "completed",
            "report": spec.id,
            "run_index": run_index,
        }
        await call.record(Kind.REPORT_MADE, call.request_id, made)
        made_index = call.receipts[-1].index

        def file(reader: AuditReader) -> bytes:
            run, result = ((reader.entry(index), reader.proof(index)) for index in (run_index, made_index))
            return report_file(document, run, result)

        return Response(await read_after_record(call, file), media_type=JSON)


async def sign_review(call: Call) -> Response:
    """Record that somebody examined a stretch of time and stands by what came of it."""
    settings = call.appliance.settings
    wire = await read_wire(
        call.request, ReviewRequest, max_bytes=settings.max_body_bytes, deadline_s=settings.body_deadline_s
    )
    from_us, until_us = _window(call, wire.from_, wire.to)
    if wire.examined:
        looked_up: dict[str, JsonValue] = {"what": "entries", "indexes": list(wire.examined), "outcome": "completed"}
        await call.record(Kind.LOG_READ, call.request_id, looked_up)
        await read_after_record(call, lambda reader: _require_reports(reader, wire.examined))
    facts: dict[str, JsonValue] = {
        "examined": list(wire.examined),
        "from_us": from_us,
        "notes_sha256": hashlib.sha256(wire.notes.encode()).hexdigest(),
        "outcome": wire.outcome,
        "until_us": until_us,
        **({"notes": wire.notes} if wire.keep_notes else {}),
    }
    await call.record(Kind.REVIEW_SIGNED_OFF, call.request_id, facts)
    return JSONResponse(
        {"index": call.receipts[-1].index, "notes_sha256": facts["notes_sha256"], "outcome": facts["outcome"]}
    )


def _require_reports(reader: AuditReader, indexes: list[int]) -> None:
    for index in indexes:
        try:
            kind = reader.entry(index).leaf.event.kind
        except EntryNotFound:
            kind = ""
        if kind != Kind.REPORT_MADE.value:
            raise BadRequest(f"entry {index} is no {Kind.REPORT_MADE.value}", code="bad_value", param="examined")


def _parameters(spec: ReportSpec, wire: ReportRequest) -> Parameters:
    given = {"subject": wire.subject, "seed": wire.seed, "sample": wire.sample}
    for name, value in given.items():
        if value is not None and name not in spec.takes:
            raise BadRequest(f"{spec.id} takes no {name}", code="bad_value", param=name)
    drawn = secrets.randbelow(MAX_SEED + 1) if wire.seed is None else wire.seed
    return Parameters(seed=drawn, sample=wire.sample or DEFAULT_SAMPLE, subject=wire.subject)


def _window(call: Call, from_text: str | None, to_text: str | None) -> tuple[int, int]:
    from_us = 0 if from_text is None else moment(from_text)[0]
    until_us = call.appliance.trail.clock.utc_us() + 1 if to_text is None else moment(to_text)[1]
    if from_us >= until_us:
        raise BadRequest("the window ends before it begins", code="bad_value", param="to")
    return from_us, until_us


def _source(call: Call, reader: AuditReader, size: int) -> ReportSource:
    settings, verifiers = call.appliance.settings, call.appliance.log.writer.verifiers
    witnessed = StateLayout(settings.state_dir).anchors
    places = [*settings.anchor_directories, *settings.anchor_written_once, *([witnessed] if witnessed.exists() else [])]
    return ReportSource(reader, size, verifiers, lambda: verify_for_report(reader.location, verifiers, places))


REPORT_ROUTES = (
    RouteSpec("/audit/reports/{id}", "POST", "runReport", ReportRequest, run_report, "Run a saved report"),
    RouteSpec("/audit/reviews", "POST", "signReview", ReviewRequest, sign_review, "Sign a review off"),
)
