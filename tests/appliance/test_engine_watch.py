"""The engine's deaths and recoveries reach the log, also while it has no room."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.admission import AdmissionDoor
from appliance.audit_trail import AuditTrail, Clock
from appliance.engine_watch import EngineWatch
from appliance.run_counters import RunCounters
from audit.errors import AuditHalted, AuditQueueFull
from audit.event import Event, Receipt
from audit.subject_keys.keyring import SubjectKeyring
from engine.health import EngineExit, EngineHealth

READY = EngineHealth(
    state="ready",
    is_healthy=True,
    last_step_age_s=0.0,
    busy=False,
    pid=1,
    restarts=0,
    last_exit=None,
    num_running=0,
    num_waiting=0,
)


class CrowdedSink:
    """A log whose queue is full for the first appends, or which has halted; what it took is durable and in order."""

    def __init__(self, num_refused: int, *, halted: bool = False) -> None:
        self.events: list[Event] = []
        self._num_refused = num_refused
        self._halted = halted

    async def append(self, event: Event, contents: object = ()) -> Receipt:  # noqa: ARG002 - the sink's shape
        """Take the event, or say why not."""
        if self._halted:
            raise AuditHalted("the disk failed")
        if self._num_refused:
            self._num_refused -= 1
            raise AuditQueueFull(1)
        self.events.append(event)
        return Receipt(len(self.events) - 1, "0" * 64, len(self.events))


def _watch(folder: Path, sink: CrowdedSink) -> tuple[EngineWatch, AdmissionDoor]:
    keyring = SubjectKeyring.create(folder / "subjects.db", bytes(32))
    door = AdmissionDoor()
    watch = EngineWatch(AuditTrail(sink, keyring, Clock(), trust="development"), door, RunCounters())
    keyring.close()
    return watch, door


@pytest.mark.parametrize("num_refused", [0, 1, 3])
async def test_a_death_is_recorded_once_the_queue_has_room(tmp_path: Path, num_refused: int):
    """A full queue delays the record of a death and its recovery; it neither loses nor swaps them."""
    sink = CrowdedSink(num_refused)
    watch, _ = _watch(tmp_path, sink)
    dead = replace(READY, state="restarting", is_healthy=False, last_exit=EngineExit("signal", "SIGKILL", 0.0))
    watch.on_change(dead)
    watch.on_change(replace(READY, restarts=1))
    await watch.close()
    assert [event.kind for event in sink.events] == ["engine:died", "engine:recovered"]
    assert sink.events[0].facts["code"] == "signal"
    assert sink.events[1].facts["restarts"] == 1


async def test_a_halted_log_holds_up_nobody(tmp_path: Path):
    """With a halted log the watch gives up the record, and a failed engine shuts the door all the same."""
    sink = CrowdedSink(0, halted=True)
    watch, door = _watch(tmp_path, sink)
    watch.on_change(replace(READY, state="failed", is_healthy=False))
    await watch.close()
    assert sink.events == []
    assert [obstacle.code for obstacle in door.obstacles] == ["engine_unavailable"]
