"""The engine's life in the log and at the door: deaths and recoveries are events, a failed engine admits nothing.

Promise: every death and recovery is recorded, in the order they came, for as long as the log can be written; a full
queue of records is waited out.
"""

from __future__ import annotations

import asyncio

import structlog

from appliance.admission import AdmissionDoor, Obstacle
from appliance.audit_trail import SYSTEM, AuditTrail, Kind
from appliance.run_counters import RunCounters
from audit.errors import AuditError
from audit.event import JsonValue
from engine.health import EngineHealth

LOG = structlog.get_logger("cloister.engine")
ENGINE_FAILED = Obstacle("engine_unavailable", "the engine died too often in a row; see /readyz, then restart")


class EngineWatch:
    """Takes the engine's changes of state, on the event loop."""

    def __init__(self, trail: AuditTrail, door: AdmissionDoor, counters: RunCounters) -> None:
        self._trail = trail
        self._door = door
        self._counters = counters
        self._died = False
        """A death was noted and no recovery since."""
        self._tasks: set[asyncio.Task[None]] = set()
        """Records on their way."""
        self._turn = asyncio.Lock()
        """Held by the oldest of them, until it is durable."""

    def on_change(self, health: EngineHealth) -> None:
        """Note a change of state."""
        LOG.info("engine_state", state=health.state, restarts=health.restarts)
        if health.state in {"restarting", "failed"}:
            self._died = True
            last = health.last_exit
            self._record(
                Kind.ENGINE_DIED,
                {
                    "state": health.state,
                    "restarts": health.restarts,
                    "code": last.code if last else "",
                    "detail": last.detail if last else "",
                    **self._counters.facts(),
                },
            )
        elif health.state == "ready" and self._died:
            self._died = False
            self._record(Kind.ENGINE_RECOVERED, {"restarts": health.restarts})
        if health.state == "failed":
            self._door.shut(ENGINE_FAILED)

    async def close(self) -> None:
        """Wait for the records on their way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _record(self, kind: Kind, facts: dict[str, JsonValue]) -> None:
        task = asyncio.create_task(self._append(kind, facts))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _append(self, kind: Kind, facts: dict[str, JsonValue]) -> None:
        try:
            async with self._turn:
                await self._trail.append_owed(kind, SYSTEM, "engine", facts)
        except AuditError as failure:  # a halted writer has shut the door itself; a refused event stays refused
            LOG.error("event_not_recorded", kind=kind.value, error=type(failure).__name__)  # noqa: TRY400
