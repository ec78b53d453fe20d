"""The disk under the log fills: said at three quarters and at nine tenths, in the log and in the operator's log.

Law: one record per level on the way up.  A level is said again only after the log had fallen clearly below it, so that
a disk that hovers at a level is no news twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from appliance.audit_trail import SYSTEM, AuditTrail, Kind
from appliance.log_status import Condition

if TYPE_CHECKING:
    from audit.event import JsonValue

LOG = structlog.get_logger("cloister.log")
PACE_S = 30.0
"""Between two measurements."""
LEVELS = (0.75, 0.90)
CLEARLY_BELOW = 0.05


class CapacityWatch:
    """Remembers the highest level that was said, and the newest condition.  Owned by the event loop."""

    def __init__(
        self,
        measure: Callable[[], Condition],
        show: Callable[[Condition], None],
        trail: AuditTrail,
        floor_bytes: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._measure = measure
        self._show = show
        self._monotonic = monotonic
        self._measured_at: float | None = None
        self._trail = trail
        self._floor_bytes = floor_bytes
        self._said = 0.0
        self._condition: Condition | None = None
        """As of the newest measurement."""

    async def examine(self) -> None:
        """See `appliance.log_watch.Examiner.examine`."""
        now = self._monotonic()
        if self._measured_at is None or now - self._measured_at >= PACE_S:
            self._condition = await asyncio.to_thread(self._measure)
            self._measured_at = now
            self._show(self._condition)
        if self._condition is not None:
            await self._warn(self._condition)

    async def _warn(self, condition: Condition) -> None:
        ratio = condition.forecast.fill_ratio
        if ratio is None:
            return
        if ratio < self._said - CLEARLY_BELOW:
            self._said = max((level for level in LEVELS if level <= ratio), default=0.0)
        level = max((level for level in LEVELS if level <= ratio), default=0.0)
        if level <= self._said:
            return
        facts: dict[str, JsonValue] = {
            "percent": round(100 * level),
            "used_bytes": condition.measure.used_bytes,
            "free_bytes": condition.measure.free_bytes,
            "floor_bytes": self._floor_bytes,
            "days_left": None if condition.forecast.days_left is None else round(condition.forecast.days_left, 1),
        }
        LOG.warning("log_filling", **facts, remedy="make room or prune; at the floor nothing is served")
        await self._trail.append(Kind.LOG_FILLING, SYSTEM, "log", facts)
        self._said = level
