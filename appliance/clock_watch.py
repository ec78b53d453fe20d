"""A clock that lost or found its time source is an event of the log and a line of the operator's log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from appliance.audit_trail import SYSTEM, AuditTrail, Kind

if TYPE_CHECKING:
    from appliance.clock_state import ClockWatch
    from audit.event import JsonValue

LOG = structlog.get_logger("cloister.log")


class ClockChanges:
    """Remembers the state that the log knows.  Owned by the event loop."""

    def __init__(self, clock: ClockWatch, trail: AuditTrail) -> None:
        self._clock = clock
        self._trail = trail
        self._recorded = clock.state().word
        """What `appliance:started` of this run says, or a later change."""

    async def examine(self) -> None:
        """See `appliance.log_watch.Examiner.examine`."""
        state = self._clock.state()
        if state.word == self._recorded:
            return
        facts: dict[str, JsonValue] = {
            "before": self._recorded,
            "now": state.word,
            "max_error_us": state.max_error_us,
            "estimated_error_us": state.estimated_error_us,
        }
        LOG.warning("clock_changed", **facts)
        await self._trail.append(Kind.CLOCK_CHANGED, SYSTEM, "clock", facts)
        self._recorded = state.word
