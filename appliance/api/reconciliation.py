"""`GET /audit/reconciliation`: the log's account of the newest runs beside the engine's counters.

Invariant: the counters are taken before the end of the log that is read, without a moment between them in which a
request could be recorded: whatever they hold has its admission among the leaves.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from starlette.responses import Response

from appliance.api.audit_log import JSON, integer, recorded_read
from appliance.api.call import Call
from appliance.api.route_spec import RouteSpec
from appliance.audit_trail import Kind
from appliance.reconciliation import Reconciliation, RunAccount, reconcile
from audit.event import JsonValue
from audit.reader import AuditReader, EntryFilter
from audit.search.expression import Within
from audit.search.fields import RANGE_END

DEFAULT_RUNS, MAX_RUNS = 1, 100


async def show_reconciliation(call: Call) -> Response:
    """Account for the newest runs, the present one among them."""
    num_runs = integer(call.query, "runs", DEFAULT_RUNS, 1, MAX_RUNS)
    log = call.appliance.log
    counters: JsonValue = log.counters.facts().get("engine")
    size, epoch = log.writer.head.size, log.writer.epoch

    def body(reader: AuditReader) -> bytes:
        starts = reader.entries(EntryFilter(kind=Kind.APPLIANCE_STARTED.value), limit=num_runs, newest=True).entries
        first_index = starts[-1].index if starts else 0
        leaves = (entry.leaf for entry in reader.walk(Within("index", first_index, RANGE_END), size=size))
        found = reconcile(leaves, None if counters is None else (epoch, counters))
        return json.dumps(reconciliation_body(found), separators=(",", ":")).encode()

    return await recorded_read(call, {"what": "reconciliation", "runs": num_runs}, body, JSON)


def reconciliation_body(found: Reconciliation) -> dict[str, Any]:
    """Give the account as JSON."""
    return {
        "object": "reconciliation",
        "verdict": found.verdict.value,
        "runs": [_run_body(run) for run in found.runs],
    }


def _run_body(run: RunAccount) -> dict[str, Any]:
    return {
        "verdict": run.verdict.value,
        **dataclasses.asdict(run),
        "open_requests": [{"subject": subject, "index": index} for subject, index in run.open_requests],
    }


RECONCILIATION_ROUTES = (
    RouteSpec(
        "/audit/reconciliation",
        "GET",
        "readAudit",
        None,
        show_reconciliation,
        "Hold the log's requests and tokens against the engine's counters",
        {"runs": {"type": "integer", "minimum": 1, "maximum": MAX_RUNS, "default": DEFAULT_RUNS}},
    ),
)
