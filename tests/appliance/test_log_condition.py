"""What the appliance watches of its log: the disk, the clock, the halt of the last run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from audit_log_builder import SIGNER, event_now
from walk_bench import WalkBench

from appliance.admission import AdmissionDoor
from appliance.audit_trail import SYSTEM, Kind
from appliance.capacity_watch import PACE_S, CapacityWatch
from appliance.cli.audit.status import status_text
from appliance.clock_state import STATES, ClockState, ClockWatch, read_clock_state
from appliance.clock_watch import ClockChanges
from appliance.halt_note import NOTE_BYTES, Halt, HaltNote, record_last_halt
from appliance.log_activity import LogActivity
from appliance.log_opening import _open_writer
from appliance.log_status import Condition, leaves_per_request, measure_condition
from appliance.log_watch import LogWatch
from appliance.metrics import ServingMetrics
from audit.errors import AuditHalted
from audit.forecast import Forecast
from audit.reader import EntryFilter
from audit.store import create_log
from audit.writer import AuditWriter

STATUS = {
    "origin": "log",
    "tree_size": 100,
    "root": "00",
    "node_id": "n",
    "boot_id": "b",
    "epoch": 3,
    "writer": {
        "state": "halted",
        "halt_reason": "the disk failed",
        "num_waiting": 0,
        "longest_wait_ms": 0.0,
        "last_commit": None,
    },
    "size": dict.fromkeys(("used_bytes", "bytes_per_leaf", "bytes_per_request", "leaves_per_day", "bytes_per_day")),
    "disk": {"free_bytes": None, "floor_bytes": 0, "fill_ratio": None, "days_left": None},
    "retention": {"first_entry": 0, "first_content": 0},
    "clock": {"state": "unknown", "max_error_us": None},
}
HALT = Halt("the clock was set by +3600.000 s", 1_790_000_000_000_000)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WalkBench]:
    """A real log."""
    made = WalkBench(tmp_path)
    yield made
    made.close()


def told(bench: WalkBench, kind: Kind) -> list:
    """Give the facts of every record of a kind."""
    return [entry.leaf.event.facts for entry in bench.reader.entries(EntryFilter(kind=kind.value)).entries]


class Disk:
    """A disk that is as full as the test says, looked at by a clock that the test moves."""

    def __init__(self, bench: WalkBench) -> None:
        self.ratio: float | None = 0.5
        self.now = 0.0
        self.shown: list[Condition] = []
        self.watch = CapacityWatch(self._measure, self.shown.append, bench.trail, 1000, monotonic=lambda: self.now)
        self._measured = measure_condition(bench.reader, 0, 1000)

    def _measure(self) -> Condition:
        expected = Forecast(1.0, 1.0, 1.0, 1.0, fill_ratio=self.ratio, days_left=12.34)
        return replace(self._measured, forecast=expected)

    async def at(self, *ratios: float | None) -> None:
        """Look at these, one after the other, each after the pace."""
        for self.ratio in ratios:
            self.now += PACE_S
            await self.watch.examine()


async def test_each_level_is_told_once_on_the_way_up(bench: WalkBench) -> None:
    """Three quarters, nine tenths; a disk that hovers is no news, one that was emptied in between is."""
    disk = Disk(bench)
    await disk.at(0.5, 0.7499, 0.75, 0.76, 0.74, 0.76, 0.89, 0.90, 0.99, 0.86, 0.91)
    assert [facts["percent"] for facts in told(bench, Kind.LOG_FILLING)] == [75, 90]
    await disk.at(0.80, 0.91, 0.2, 0.95)
    assert [facts["percent"] for facts in told(bench, Kind.LOG_FILLING)] == [75, 90, 90, 90]
    facts = told(bench, Kind.LOG_FILLING)[0]
    assert (facts["floor_bytes"], facts["days_left"]) == (1000, 12.3)
    assert facts["used_bytes"] > 0


async def test_a_jump_past_both_levels_is_told_once(bench: WalkBench) -> None:
    """As the higher of the two."""
    await Disk(bench).at(0.97)
    assert [facts["percent"] for facts in told(bench, Kind.LOG_FILLING)] == [90]


async def test_a_disk_that_nobody_sees_fills_unseen(bench: WalkBench) -> None:
    """The database server's: watched there."""
    await Disk(bench).at(None, None)
    assert told(bench, Kind.LOG_FILLING) == []


async def test_it_measures_at_its_own_pace(bench: WalkBench) -> None:
    """Looked at often, measured seldom; each measurement reaches the metrics."""
    disk = Disk(bench)
    for disk.now in (0.0, 1.0, PACE_S - 1, PACE_S, PACE_S + 1):
        await disk.watch.examine()
    assert len(disk.shown) == 2


async def test_a_warning_that_was_not_recorded_is_tried_again(
    bench: WalkBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The level counts as told once it is durable."""
    disk = Disk(bench)

    async def refuse(*_: object) -> None:
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(bench.trail, "append", refuse)
        with pytest.raises(OSError):
            await disk.at(0.8)
    await disk.at(0.8)
    assert len(told(bench, Kind.LOG_FILLING)) == 1


async def test_a_clock_that_loses_its_source_is_an_event(bench: WalkBench) -> None:
    """One record per change, with what it was before and the kernel's bounds."""
    state, now = [ClockState("synchronised", 900, 20)], [0.0]
    clock = ClockWatch(lambda: state[0], lambda: now[0])
    changes = ClockChanges(clock, bench.trail)
    await changes.examine()
    state[0] = ClockState("unsynchronised", 16_000_000, 16_000_000)
    await changes.examine()
    assert told(bench, Kind.CLOCK_CHANGED) == [], "the answer is kept for a moment"
    now[0] = 2.0
    await changes.examine()
    await changes.examine()
    [facts] = told(bench, Kind.CLOCK_CHANGED)
    assert (facts["before"], facts["now"], facts["max_error_us"]) == ("synchronised", "unsynchronised", 16_000_000)


def test_the_kernel_is_asked_and_nothing_is_set() -> None:
    """One of three words; twice the same question, no right needed."""
    first, second = read_clock_state(), read_clock_state()
    assert {first.word, second.word} <= set(STATES)
    assert first.word == "unknown" or (first.max_error_us is not None and first.max_error_us >= 0)


def test_the_status_tells_of_every_place_that_the_log_goes_to() -> None:
    """Anchors and copies, one line each; what fails says so with its reason."""
    anchors = [
        {"sink": "directory:/mnt/usb", "size": 90, "num_ahead": 10, "failing": None, "reason": None},
        {"sink": "witness", "size": None, "num_ahead": None, "failing": "anchor_late", "reason": None},
    ]
    exports = [
        {"destination": "cef+tcp://h:1", "num_behind": 3, "failing": "sink_failed", "reason": "h:1: refused\x1b[2J"}
    ]
    text = status_text({**STATUS, "anchors": anchors, "exports": exports})
    assert "  anchor directory:/mnt/usb: has the head of 90 entries, 10 came since" in text.splitlines()
    assert "  anchor witness: no head taken in this run, FAILING (anchor_late): no answer" in text.splitlines()
    assert "  copy to cef+tcp://h:1: 3 behind, FAILING (sink_failed): h:1: refused\\x1b[2J" in text.splitlines()
    assert "  the disk is the database server's; watch it there" in text.splitlines()
    assert "  no commit yet" in text.splitlines()
    assert "  writer halted (the disk failed), 0 waiting, longest wait 0.0 ms" in text.splitlines()


def test_every_leaf_says_what_the_clock_was_worth(bench: WalkBench) -> None:
    """By the trail, so that no record can forget it."""
    assert bench.trail.clock.state() in STATES


async def test_the_last_runs_halt_is_recorded_once(bench: WalkBench, tmp_path: Path) -> None:
    """Written by the halting run, recorded by the next one with the run and size it concerns, then taken away."""
    note = HaltNote(tmp_path / "halted.json")
    await record_last_halt(note, bench.trail, bench.reader, epoch=5, size=77)
    assert told(bench, Kind.LOG_HALTED) == []
    note.write(HALT)
    await record_last_halt(note, bench.trail, bench.reader, epoch=5, size=77)
    await record_last_halt(note, bench.trail, bench.reader, epoch=6, size=78)
    [facts] = told(bench, Kind.LOG_HALTED)
    assert (facts["reason"], facts["halted_at_us"]) == (HALT.reason, HALT.at_us)
    assert (facts["halted_epoch"], facts["tree_size"]) == (4, 77)
    assert note.read() is None


async def test_a_start_that_died_before_it_took_the_note_away_records_nothing_twice(
    bench: WalkBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crash between the record and the clearing: the next start sees that it stands there."""
    note = HaltNote(tmp_path / "halted.json")
    note.prepare()
    note.write(HALT)

    def die(_: HaltNote) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(HaltNote, "clear", die)
        with pytest.raises(SystemExit):
            await record_last_halt(note, bench.trail, bench.reader, epoch=2, size=0)
    assert note.read() == HALT
    await record_last_halt(note, bench.trail, bench.reader, epoch=3, size=9)
    assert len(told(bench, Kind.LOG_HALTED)) == 1
    assert note.read() is None


def test_the_note_needs_no_room_when_it_is_written(tmp_path: Path) -> None:
    """Its space is taken at the start; writing changes neither its size nor its blocks."""
    note = HaltNote(tmp_path / "halted.json")
    note.prepare()
    path = tmp_path / "halted.json"
    before = (path.stat().st_size, path.stat().st_blocks, path.stat().st_mode & 0o777)
    note.write(replace(HALT, reason="é" * 10_000))
    assert (path.stat().st_size, path.stat().st_blocks, path.stat().st_mode & 0o777) == before
    assert before[::2] == (NOTE_BYTES, 0o600)
    halt = note.read()
    assert halt is not None
    assert (halt.reason, halt.at_us) == ("é" * 512, HALT.at_us)


def test_a_halt_is_noted_although_nobody_s_event_loop_is_left(tmp_path: Path) -> None:
    """The writer's thread may outlive the loop that opened it."""
    path = tmp_path / "audit.db"
    create_log(path, [SIGNER])
    note = HaltNote(tmp_path / "halted.json")
    note.prepare()
    state: Any = SimpleNamespace(log_signer=SIGNER, log_keys=SimpleNamespace(signers=[SIGNER], earlier=[]))
    settings: Any = SimpleNamespace(min_free_bytes=0, log_patience_s=1.0)

    async def opened() -> AuditWriter:
        return _open_writer(path, settings, state, AdmissionDoor(), ServingMetrics("m"), LogActivity(), note)

    writer = asyncio.run(opened())
    path.rename(tmp_path / "elsewhere.db")
    with pytest.raises(AuditHalted):
        writer.submit(event_now(0)).result()
    writer.close()
    halt = note.read()
    assert halt is not None
    assert "was removed" in halt.reason


@pytest.mark.parametrize("text", ["x", "[]", "{}", '{"reason": 1, "at_us": 1}', '{"reason": "x", "at_us": -1}'])
async def test_a_note_that_is_none_is_left_alone(bench: WalkBench, tmp_path: Path, text: str) -> None:
    """Said in the operator's log; the start goes on and nothing is made up."""
    path = tmp_path / "halted.json"
    path.write_text(text)
    await record_last_halt(HaltNote(path), bench.trail, bench.reader, epoch=2, size=0)
    assert told(bench, Kind.LOG_HALTED) == []
    assert path.read_text() == text


def test_activity_holds_the_newest_commit_and_wakes_its_listeners() -> None:
    """Figures of the writer's thread and of the loop."""
    woken: list[int] = []
    activity = LogActivity(lambda: 7)
    activity.listen(lambda: woken.append(1))
    activity.committed(0.5, 3)
    activity.committed(0.25, 1)
    activity.waited(0.1)
    activity.waited(0.05)
    assert activity.newest_commit is not None
    assert (activity.newest_commit.at_us, activity.newest_commit.seconds, activity.newest_commit.num_leaves) == (
        *(7, 0.25, 1),
    )
    assert (activity.num_commits, activity.longest_wait_s, woken) == (2, 0.1, [1, 1])


def test_a_request_is_two_leaves_or_one() -> None:
    """Admitted and ended, or turned away: by the kinds that were counted."""
    kinds = {"request:admitted": 3, "request:completed": 3, "request:denied": 2, "log:read": 9}
    assert leaves_per_request(kinds) == pytest.approx(8 / 5)
    assert leaves_per_request({"log:read": 9}) is None


async def test_the_condition_of_a_real_log(bench: WalkBench) -> None:
    """Measured through the reader, with the floor that the settings name."""
    for number in range(4):
        await bench.trail.append(Kind.KEYS_LISTED, SYSTEM, str(number), {})
    condition = measure_condition(bench.reader, bench.trail.clock.utc_us(), 0)
    assert condition.measure.num_leaves == 4
    assert condition.measure.num_recent == 4
    assert condition.forecast.bytes_per_leaf == condition.measure.used_bytes / 4
    assert json.dumps(dict(condition.measure.kinds)) == '{"keys:listed": 4}'


async def test_a_look_that_breaks_keeps_no_other_away() -> None:
    """Whatever an examiner raises: the ones behind it are asked, and the next look comes."""
    asked = asyncio.Event()

    class Breaking:
        async def examine(self) -> None:
            """Break."""
            raise LookupError("a fault of ours")

    class Sound:
        async def examine(self) -> None:
            """Look."""
            asked.set()

    watch = LogWatch(pace_s=60.0)
    watch.start([Breaking(), Sound()])
    for _ in range(2):
        async with asyncio.timeout(60):
            await asked.wait()
        asked.clear()
        watch.nudge()
    async with asyncio.timeout(60):
        await watch.close()  # in the very turn of a nudge, which must not make it forget to end
