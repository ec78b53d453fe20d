"""The operator's routes: metrics, keys, and the description of the API itself."""

from __future__ import annotations

import asyncio
import datetime as dt

import structlog
from starlette.responses import JSONResponse, Response

from appliance.api.call import Call
from appliance.api.route_spec import RouteSpec
from appliance.audit_trail import Kind
from appliance.errors import NotFound
from appliance.identity.errors import KeyStoreError

LOG = structlog.get_logger("cloister.operations")
KEYS_BUSY_S = 1.0
"""How long the answer to a revocation waits for another process that holds the key database."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def show_metrics(call: Call) -> Response:
    """`GET /metrics`: Prometheus text.  Not recorded: it is read every few seconds and holds counts only."""
    call.appliance.refresh_gauges()
    return Response(call.appliance.metrics.render(), media_type=METRICS_TYPE)


async def list_keys(call: Call) -> Response:
    """`GET /keys`: every key without its secret."""
    rows = call.appliance.keys.list()
    await call.record(Kind.KEYS_LISTED, call.request_id, {"num_keys": len(rows)})
    return JSONResponse(
        {
            "object": "list",
            "data": [
                {
                    "id": row.id,
                    "owner": row.owner,
                    "kind": row.kind,
                    "tenant": row.tenant,
                    "roles": list(row.roles),
                    "clearance": row.clearance,
                    "not_before": rfc3339(row.not_before_us),
                    "expires_at": rfc3339(row.expires_at_us),
                    "revoked_at": None if row.revoked_at_us is None else rfc3339(row.revoked_at_us),
                    "last_used_day": row.last_used_day,
                }
                for row in rows
            ],
        }
    )


async def revoke_key(call: Call) -> Response:
    """`POST /keys/{id}/revoke`: the key is refused from the next request on.  Recorded before it is done.

    The answer holds whether or not the key database can be written now: this process refuses the key since the record
    was durable, and the next start reads that record.  A key that was revoked before keeps its first time, and the
    answer says that one.
    """
    row = call.appliance.keys.find(call.request.path_params["id"])
    if row is None:
        raise _no_such_key()
    await call.record(Kind.KEY_REVOKED, row.id, {"owner": row.owner})
    revoked = call.appliance.keys.refuse(row.id, call.appliance.trail.clock.utc_us())
    if revoked is None or revoked.revoked_at_us is None:
        raise _no_such_key()  # another process took the row away meanwhile
    try:
        await asyncio.to_thread(call.appliance.keys.write_refusals, busy_s=KEYS_BUSY_S)
    except KeyStoreError as failure:
        LOG.warning("revocation_not_on_file", key_ids=[row.id], reason=str(failure))
    return JSONResponse({"id": revoked.id, "revoked_at": rfc3339(revoked.revoked_at_us)})


def _no_such_key() -> NotFound:
    return NotFound("there is no key of that id; GET /keys lists them", code="key_not_found", param="id")


def rfc3339(at_us: int) -> str:
    """Give a time in microseconds as people and machines read it."""
    return dt.datetime.fromtimestamp(at_us / 1e6, tz=dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


async def show_openapi(call: Call) -> Response:
    """`GET /openapi.json`: the description of every route."""
    return JSONResponse(call.appliance.openapi)


OPERATION_ROUTES = (
    RouteSpec("/metrics", "GET", "readMetrics", None, show_metrics, "Prometheus metrics"),
    RouteSpec("/keys", "GET", "listKeys", None, list_keys, "List API keys"),
    RouteSpec("/keys/{id}/revoke", "POST", "revokeKey", None, revoke_key, "Revoke an API key"),
    RouteSpec("/openapi.json", "GET", "readSpec", None, show_openapi, "This API, described"),
)
