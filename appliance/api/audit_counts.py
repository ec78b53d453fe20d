"""`GET /audit/aggregates`: counts, token totals and latencies over a filter, from leaves and never from columns alone.

Invariants: recorded before a row is read; of the log up to that record; one long reading of the log at a time.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.responses import Response

from appliance.api.audit_filter import FILTER_QUERY, read_filter
from appliance.api.audit_log import JSON, recorded_read
from appliance.api.call import Call
from appliance.api.route_spec import RouteSpec
from appliance.audit_trail import PAIRING
from appliance.errors import BadRequest, Overloaded
from audit.aggregate import Aggregate, Numbers, aggregate, require_fields
from audit.canonical import digest_of
from audit.errors import AuditRefused
from audit.event import JsonValue
from audit.reader import AuditReader
from audit.search.expression import canonical

MAX_BY_CHARACTERS = 64
RETRY_AFTER_S = 5
NUMBERS = Numbers(
    kinds=PAIRING.terminals,
    totals=("prompt_tokens", "completion_tokens", "cached_tokens"),
    spreads=("queue_ms", "first_token_ms", "total_ms"),
)
"""Of terminal records alone: an admission says its prompt's tokens as well, and would count them twice."""


async def count_entries(call: Call) -> Response:
    """Count what a filter means by up to two fields and by day or hour."""
    by = tuple(call.query.get("by", "kind").split(","))
    try:
        require_fields(by)
    except AuditRefused as refused:
        raise BadRequest(str(refused), code="bad_value", param="by") from refused
    wanted = read_filter(call.query)
    asked: dict[str, JsonValue] = {"what": "aggregates", "filter": canonical(wanted), "by": list(by)}

    def body(reader: AuditReader) -> bytes:
        size = call.size_at_record
        try:
            found = aggregate(reader.walk(wanted, size=size), by, NUMBERS)
        except AuditRefused as refused:
            raise BadRequest(str(refused), code="bad_value", param="by") from refused
        return json.dumps(aggregate_body(found, size), ensure_ascii=False).encode()

    async with one_long_reading(call):
        return await recorded_read(call, {**asked, "query_sha256": digest_of(asked)}, body, JSON)


@asynccontextmanager
async def one_long_reading(call: Call) -> AsyncIterator[None]:
    """Let one call at a time read as much of the log as it likes.

    Raises:
        Overloaded: another one does.
    """
    reading = call.appliance.one_long_reading
    if reading.locked():
        raise Overloaded("another report is being made; ask again", code="audit_busy", retry_after_s=RETRY_AFTER_S)
    async with reading:
        yield


def aggregate_body(found: Aggregate, size: int) -> dict[str, Any]:
    """Give counts as the API shows them."""
    return {
        "object": "aggregate",
        "by": list(found.by),
        "size": size,
        "num_entries": found.num_entries,
        "groups": [
            {
                "key": dict(zip(found.by, group.key, strict=True)),
                "count": group.count,
                "totals": dict(group.totals),
                "quantiles": {name: dataclasses.asdict(spread) for name, spread in group.quantiles.items()},
            }
            for group in found.groups
        ],
    }


AGGREGATES_QUERY: Mapping[str, Mapping[str, Any]] = {
    **FILTER_QUERY,
    "by": {"type": "string", "maxLength": MAX_BY_CHARACTERS, "default": "kind"},
}
COUNT_ROUTES = (
    RouteSpec("/audit/aggregates", "GET", "readAudit", None, count_entries, "Count entries", AGGREGATES_QUERY),
)
