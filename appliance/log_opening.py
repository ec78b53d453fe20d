"""Open the log for this run: recover it, measure it, begin it, and close what the last run left open.

The order is the promise: nothing is recorded before the log has recovered, `appliance:started` is the first entry of a
run, every admitted request that died with the last run has its terminal record before policy is loaded, and every
erasure that was decided is done.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from appliance.admission import AdmissionDoor
from appliance.anchors.keeper import Anchoring
from appliance.anchors.places import sinks_of
from appliance.anchors.watch import AnchorWatch
from appliance.audit_trail import PAIRING, REPLAY_PAIRING, SYSTEM, AuditTrail, Clock, Kind
from appliance.capacity_watch import CapacityWatch
from appliance.clock_state import ClockWatch
from appliance.clock_watch import ClockChanges
from appliance.export_watch import ExportWatch
from appliance.halt_note import Halt, HaltNote, record_last_halt
from appliance.keeping.erasure import finish_after_restart
from appliance.key_rotation import record_rotation
from appliance.log_activity import LogActivity
from appliance.log_location import find_log
from appliance.log_status import measure_condition
from appliance.log_watch import LogWatch
from appliance.metrics import ServingMetrics
from appliance.recorder import LOG_AWAY_OBSTACLE, LOG_OBSTACLE
from appliance.run_counters import RunCounters
from appliance.settings import Settings
from appliance.siem_exports import SiemExports
from appliance.state.opening import OpenState
from audit.anchoring.head import SignedHead
from audit.event import Event, Floor, JsonValue, Receipt, SealedContent
from audit.location import LogLocation
from audit.reader import AuditReader, EntryFilter
from audit.subject_keys.keyring import SubjectKeyring
from audit.writer import AuditWriter, WriterConfig, WriterState

LOG = structlog.get_logger("cloister.log")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class OpenLog:
    """The log of this run."""

    writer: AuditWriter
    reader: AuditReader
    trail: AuditTrail
    keyring: SubjectKeyring
    exports: SiemExports = field(default_factory=SiemExports)
    activity: LogActivity = field(default_factory=LogActivity)
    counters: RunCounters = field(default_factory=RunCounters)
    clock: ClockWatch = field(default_factory=ClockWatch)
    anchoring: Anchoring = field(default_factory=Anchoring)


class _MeasuredSink:
    """The writer, with a count and the wait per kind."""

    def __init__(self, writer: AuditWriter, metrics: ServingMetrics, activity: LogActivity) -> None:
        self._writer = writer
        self._metrics = metrics
        self._activity = activity

    async def append(self, event: Event, contents: Sequence[SealedContent] = ()) -> Receipt:
        """Append; see `audit.writer.AuditWriter.append`."""
        started = time.monotonic()
        try:
            receipt = await self._writer.append(event, contents)
        finally:
            waited_s = time.monotonic() - started
            self._metrics.append_seconds.labels(event.kind).observe(waited_s)
            self._activity.waited(waited_s)
        self._metrics.records.labels(event.kind).inc()
        return receipt

    async def prune(self, event: Event, floor: Floor) -> Receipt:
        """Prune; see `audit.writer.AuditWriter.prune`."""
        with self._metrics.append_seconds.labels(event.kind).time():
            receipt = await self._writer.prune(event, floor)
        self._metrics.records.labels(event.kind).inc()
        return receipt


async def open_log(
    settings: Settings,
    state: OpenState,
    door: AdmissionDoor,
    metrics: ServingMetrics,
    start_facts: Mapping[str, JsonValue],
    closing: AsyncExitStack,
) -> OpenLog:
    """Open, begin and tidy the log; `closing` ends the run with `appliance:stopped` and the last checkpoint.

    Raises:
        AuditError: names the file at fault and the remedy.
    """
    activity, counters, clock = LogActivity(), RunCounters(), ClockWatch()
    note = HaltNote(state.layout.halt_note)
    places = find_log(settings, state.layout)
    writer = _open_writer(places.writer, settings, state, door, metrics, activity, note)
    size_before = writer.head.size
    closing.push_async_callback(asyncio.to_thread, writer.close)
    keyring = closing.enter_context(SubjectKeyring(state.layout.subject_keys_db, state.kek))
    reader = closing.enter_context(AuditReader(places.reader, writer.verifiers))

    def is_away() -> bool:
        return door.stands(LOG_AWAY_OBSTACLE.code)

    clocks = Clock(state=lambda: clock.state().word)
    trail = AuditTrail(
        _MeasuredSink(writer, metrics, activity),
        keyring,
        clocks,
        trust=state.trust_root.trust,
        is_away=is_away,
    )
    watch = LogWatch()
    exports = SiemExports.start(settings, state.layout, writer.head.origin, reader, _from_any_thread(watch.nudge))
    closing.push_async_callback(asyncio.to_thread, exports.close)
    activity.listen(exports.wake)
    anchoring = Anchoring(
        sinks_of(settings, state.layout.anchors, reader.consistency),
        lambda: _newest_head(reader),
        interval_s=settings.anchor_interval_s,
        deadline_s=settings.anchor_deadline_s,
        tell=watch.nudge,
    )
    closing.push_async_callback(anchoring.finish)  # after `appliance:stopped`, so that the last head leaves the box too
    closing.push_async_callback(_record_stop, trail, writer, counters)
    changes = ClockChanges(clock, trail)
    await trail.append(Kind.APPLIANCE_STARTED, SYSTEM, "appliance", start_facts)
    await record_rotation(state.log_keys, trail, reader)
    await record_last_halt(note, trail, reader, epoch=writer.epoch, size=size_before)
    await _close_what_was_left_open(trail, reader)
    await finish_after_restart(trail, reader, keyring)
    watch.start(
        [
            ExportWatch(exports, trail, reader, lambda: writer.head.size, settings.siem_deadline_s),
            CapacityWatch(
                lambda: measure_condition(reader, clocks.utc_us(), settings.min_free_bytes),
                metrics.measured,
                trail,
                settings.min_free_bytes,
            ),
            changes,
            AnchorWatch(anchoring, trail, reader),
        ]
    )
    anchoring.start()
    closing.push_async_callback(watch.close)
    return OpenLog(writer, reader, trail, keyring, exports, activity, counters, clock, anchoring)


def _newest_head(reader: AuditReader) -> SignedHead:
    newest = reader.head()
    return SignedHead(newest.checkpoint, newest.note)


def _from_any_thread(act: Callable[[], None]) -> Callable[[], None]:
    """Give what calls `act` on this event loop, for threads that may outlive it."""
    loop = asyncio.get_running_loop()

    def call() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            loop.call_soon_threadsafe(act)

    return call


def _open_writer(
    location: LogLocation,
    settings: Settings,
    state: OpenState,
    door: AdmissionDoor,
    metrics: ServingMetrics,
    activity: LogActivity,
    note: HaltNote,
) -> AuditWriter:
    def observe_commit(seconds: float, num_leaves: int) -> None:
        metrics.commit_seconds.observe(seconds)
        metrics.leaves_per_commit.observe(num_leaves)
        activity.committed(seconds, num_leaves)

    shut, shut_for_now, clear = (
        _from_any_thread(act)  # the writer's thread may outlive this loop
        for act in (
            lambda: door.shut(LOG_OBSTACLE),
            lambda: door.shut(LOG_AWAY_OBSTACLE),
            lambda: door.clear(LOG_AWAY_OBSTACLE.code),
        )
    )

    def on_halt(reason: str) -> None:
        LOG.error("log_halted", reason=reason)
        clear()  # it will not come back by itself
        shut()
        try:
            note.write(Halt(reason, time.time_ns() // 1_000))
        except OSError as failure:
            LOG.error("halt_not_noted", reason=failure.strerror)  # noqa: TRY400 - the disk's word says it all

    def on_interruption(reason: str | None) -> None:
        if reason is None:
            LOG.warning("log_database_back")
            clear()
        else:
            LOG.error("log_database_away", reason=reason)
            shut_for_now()

    config = WriterConfig(
        path=location,
        node_id=state.log_signer.name,
        boot_id=BOOT_ID.read_text().strip() if BOOT_ID.exists() else secrets.token_hex(16),
        min_free_bytes=settings.min_free_bytes,
        patience_s=settings.log_patience_s,
    )
    return AuditWriter.open(
        config,
        state.log_keys.signers,
        earlier_verifiers=state.log_keys.earlier,
        observe_commit=observe_commit,
        on_halt=on_halt,
        on_interruption=on_interruption,
    )


async def _record_stop(trail: AuditTrail, writer: AuditWriter, counters: RunCounters) -> None:
    if writer.state is WriterState.RUNNING:
        await trail.append_owed(Kind.APPLIANCE_STOPPED, SYSTEM, "appliance", counters.facts())


async def _close_what_was_left_open(trail: AuditTrail, reader: AuditReader) -> None:
    """Give every admitted request and every replay of the last run, which died before it could, its one end.

    `policy:loaded` comes after this step in every start, so nothing older than the newest of them is still open.
    """
    done = reader.entries(EntryFilter(kind=Kind.POLICY_LOADED.value), limit=1, newest=True).entries
    from_index = done[0].index if done else 0
    for open_subject in await asyncio.to_thread(reader.open_subjects, PAIRING, from_index=from_index):
        facts: dict[str, JsonValue] = {"admitted_index": open_subject.index, "outcome": "abandoned"}
        await trail.append(Kind.REQUEST_ABANDONED, SYSTEM, open_subject.subject, facts)
    for open_subject in await asyncio.to_thread(reader.open_subjects, REPLAY_PAIRING, from_index=from_index):
        facts = {"outcome": "abandoned", "started_index": open_subject.index, "verdict": None}
        await trail.append(Kind.REPLAY_ENDED, SYSTEM, open_subject.subject, facts)
