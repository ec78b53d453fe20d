"""A copy that begins to fail, or recovers, is an event of the log and a line of the operator's log.

Law: the leaves about copies alone never make another one, so a destination that fails on exactly those cannot fill the
log; at most two leaves per leaf of anybody else's, and at most two per retry.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from appliance.audit_trail import SYSTEM, AuditTrail, Kind
from appliance.failing_record import stands_failing

if TYPE_CHECKING:
    from appliance.siem_exports import SiemExports
    from audit.event import JsonValue
    from audit.reader import AuditReader
    from audit.siem.exporter import Exporter, ExportStatus

LOG = structlog.get_logger("cloister.siem")
MAX_REASON_CHARACTERS = 256


class ExportWatch:
    """Remembers which destinations the log says are failing.  Owned by the event loop."""

    def __init__(
        self,
        exports: SiemExports,
        trail: AuditTrail,
        reader: AuditReader,
        head_size: Callable[[], int],
        deadline_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exports = exports
        self._trail = trail
        self._head_size = head_size
        self._deadline_s = deadline_s
        self._monotonic = monotonic
        self._failing = {
            exporter.destination.text
            for exporter in exports.exporters
            if stands_failing(reader, Kind.EXPORT_FAILING, Kind.EXPORT_RECOVERED, exporter.destination.text)
        }
        """Destinations whose newest record says so, of this run or an earlier one."""

    async def examine(self) -> None:
        """See `appliance.log_watch.Examiner.examine`."""
        for exporter in self._exports.exporters:
            await self._examine(exporter)

    async def _examine(self, exporter: Exporter) -> None:
        text, status = exporter.destination.text, exporter.status
        code = failing_code(status, self._monotonic(), self._deadline_s)
        facts: dict[str, JsonValue] = {
            "format": exporter.destination.format.value,
            "transport": exporter.destination.transport.value,
            "next_index": status.next_index,
            "num_behind": max(0, self._head_size() - status.next_index),
        }
        if code is not None and text not in self._failing and status.concerns_others:
            reason = status.failure or f"has not taken a batch within {self._deadline_s} s"
            LOG.error("export_failing", destination=text, code=code, reason=reason, **facts)
            facts |= {"code": code, "reason": reason[:MAX_REASON_CHARACTERS]}
            await self._trail.append(Kind.EXPORT_FAILING, SYSTEM, text, facts)
            self._failing.add(text)
        elif code is None and text in self._failing and status.num_taken:
            LOG.info("export_recovered", destination=text, **facts)
            await self._trail.append(Kind.EXPORT_RECOVERED, SYSTEM, text, facts)
            self._failing.discard(text)


def failing_code(status: ExportStatus, now: float, deadline_s: float) -> str | None:
    """Tell why a destination counts as failing now, if it does."""
    if status.failure_code is not None:
        return status.failure_code
    is_late = status.busy_since is not None and now - status.busy_since > deadline_s
    return "sink_late" if is_late else None
