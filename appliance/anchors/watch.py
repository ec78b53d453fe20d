"""A sink that begins to fail, or recovers, is an event of the log.

Law: what is recorded is a change and never a state, and what stood recorded before this run counts: however long a sink
fails, and however often the appliance starts meanwhile, that is one leaf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.audit_trail import SYSTEM, AuditTrail, Kind
from appliance.failing_record import stands_failing

if TYPE_CHECKING:
    from appliance.anchors.keeper import Anchoring, SinkKeeper
    from audit.event import JsonValue
    from audit.reader import AuditReader

MAX_REASON_CHARACTERS = 256


class AnchorWatch:
    """Remembers which sinks the log says are failing.  Owned by the event loop."""

    def __init__(self, anchoring: Anchoring, trail: AuditTrail, reader: AuditReader) -> None:
        self._anchoring = anchoring
        self._trail = trail
        self._failing = {
            keeper.name
            for keeper in anchoring.keepers
            if stands_failing(reader, Kind.ANCHOR_FAILING, Kind.ANCHOR_RECOVERED, keeper.name)
        }

    async def examine(self) -> None:
        """See `appliance.log_watch.Examiner.examine`."""
        for keeper in self._anchoring.keepers:
            await self._examine(keeper)

    async def _examine(self, keeper: SinkKeeper) -> None:
        status = keeper.status
        facts: dict[str, JsonValue] = {"anchored_size": status.size}
        if status.code is not None and keeper.name not in self._failing:
            facts |= {"code": status.code, "reason": status.reason[:MAX_REASON_CHARACTERS]}
            await self._trail.append(Kind.ANCHOR_FAILING, SYSTEM, keeper.name, facts)
            self._failing.add(keeper.name)
        elif status.code is None and status.num_taken and keeper.name in self._failing:
            await self._trail.append(Kind.ANCHOR_RECOVERED, SYSTEM, keeper.name, facts)
            self._failing.discard(keeper.name)
