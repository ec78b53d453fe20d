"""`GET /audit/status`: the log's condition in figures, for whoever runs it and whoever examines it.

The same action as `/metrics`, and not recorded either: figures of the store and of the writer, nothing of any record.
"""

from __future__ import annotations

import asyncio
import json

from starlette.responses import Response

from appliance.api.audit_log import JSON
from appliance.api.call import Call
from appliance.api.route_spec import RouteSpec
from appliance.log_status import measure_condition, status_body


async def show_status(call: Call) -> Response:
    """Measure now and show."""
    appliance = call.appliance
    log, settings = appliance.log, appliance.settings
    now_us = appliance.trail.clock.utc_us()
    condition = await asyncio.to_thread(measure_condition, log.reader, now_us, settings.min_free_bytes)
    return Response(json.dumps(status_body(log, condition, settings)), media_type=JSON)


STATUS_ROUTES = (
    RouteSpec("/audit/status", "GET", "readMetrics", None, show_status, "Show the log's condition in figures"),
)
