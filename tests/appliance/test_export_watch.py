"""A failing copy is told of once, its recovery once, and the telling ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from walk_bench import SIGNER, WalkBench

from appliance.audit_trail import SYSTEM, Kind
from appliance.export_watch import ExportWatch
from appliance.log_watch import LogWatch
from appliance.settings import Settings, SettingsRefused
from appliance.siem_exports import OWN_KINDS, SiemExports
from appliance.state.layout import StateLayout
from audit.errors import AuditHalted
from audit.siem.copy_lines import read_line
from audit.siem.cursor import CursorFile
from audit.siem.destination import Destination
from audit.siem.exported import LogName
from audit.siem.exporter import Exporter, ExportPace, ExportStatus
from audit.siem.sink import SinkFailed

DESTINATION = Destination.parse("jsonl+file:///copy")
FINE = ExportStatus(3, 3, None, None, 0, None, concerns_others=True)
FAILED = replace(FINE, failure="told to", failure_code="sink_failed", num_failures=1)


@dataclass
class FakeExporter:
    """Shows the status that a test sets."""

    status: ExportStatus = FINE
    destination: Destination = DESTINATION


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WalkBench]:
    """A real log."""
    made = WalkBench(tmp_path)
    yield made
    made.close()


def watch_of(bench: WalkBench, exporter: object, **arguments) -> ExportWatch:
    """Watch one exporter."""
    exports = SiemExports((exporter,))
    return ExportWatch(exports, bench.trail, bench.reader, lambda: bench.writer.head.size, 10.0, **arguments)


async def test_one_record_when_it_begins_and_one_when_it_ends(bench: WalkBench) -> None:
    """Many looks at the same state make one record; the facts say where, why and how far."""
    exporter = FakeExporter()
    watch = watch_of(bench, exporter)
    for status in (FINE, FAILED, FAILED, replace(FAILED, num_failures=9), FINE, FINE, FAILED, FINE):
        exporter.status = status
        await watch.examine()
    told = bench.kinds(DESTINATION.text)
    assert told == ["export:failing", "export:recovered"] * 2
    facts = bench.reader.entry(0).leaf.event.facts
    assert facts["code"] == "sink_failed"
    assert facts["reason"] == "told to"
    assert (facts["format"], facts["transport"], facts["next_index"], facts["num_behind"]) == ("jsonl", "file", 3, 0)


async def test_what_was_failing_at_the_last_stop_recovers_at_the_next_start(bench: WalkBench) -> None:
    """The log remembers; a destination that has not taken anything yet has not recovered."""
    await watch_of(bench, FakeExporter(FAILED)).examine()
    exporter = FakeExporter(replace(FINE, num_taken=0))
    watch = watch_of(bench, exporter)
    await watch.examine()
    assert bench.kinds(DESTINATION.text) == ["export:failing"]
    exporter.status = FINE
    await watch.examine()
    assert bench.kinds(DESTINATION.text) == ["export:failing", "export:recovered"]


async def test_a_hanging_sink_is_late_by_the_clock(bench: WalkBench) -> None:
    """Neither taken nor failed: within the deadline it is at work, after it it is late."""
    exporter, now = FakeExporter(replace(FINE, busy_since=100.0)), [110.0]
    watch = watch_of(bench, exporter, monotonic=lambda: now[0])
    await watch.examine()
    assert bench.kinds(DESTINATION.text) == []
    now[0] = 110.1
    await watch.examine()
    assert bench.reader.entry(0).leaf.event.facts["code"] == "sink_late"


async def test_leaves_about_copies_alone_make_no_other(bench: WalkBench) -> None:
    """What fails on them is known to the metrics, and the log does not grow by it."""
    watch = watch_of(bench, FakeExporter(replace(FAILED, concerns_others=False)))
    await watch.examine()
    assert bench.kinds(DESTINATION.text) == []


async def test_what_could_not_be_recorded_is_tried_again(bench: WalkBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that fails is not the last one, and raises nothing."""
    log_watch = LogWatch()
    watch = watch_of(bench, FakeExporter(FAILED))
    log_watch._examiners = (watch,)

    async def halted(*_: object) -> None:
        raise AuditHalted("no")

    with monkeypatch.context() as patched:
        patched.setattr(bench.trail, "append", halted)
        await log_watch.look()
    assert bench.kinds(DESTINATION.text) == []
    await log_watch.look()
    assert bench.kinds(DESTINATION.text) == ["export:failing"]


class WorstSink:
    """Takes what others wrote when it is offered a second time, and fails at first on everything new, for ever."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.taken: list[int] = []

    def take(self, events) -> None:
        """Fail once on every set that holds something new."""
        indexes = [read_line(event.rstrip()).index for event in events]
        new = set(indexes) - self.seen
        self.seen |= new
        if new:
            raise SinkFailed("something new")
        self.taken += indexes

    def close(self) -> None:
        """Nothing is open."""


async def test_the_telling_converges_with_the_worst_sink_there_is(bench: WalkBench, tmp_path: Path) -> None:
    """Every new leaf fails once, also those about failures: two leaves per leaf of others, then silence."""
    sink = WorstSink()
    exporter = Exporter(
        DESTINATION,
        LogName(SIGNER.name, "1"),
        bench.reader,
        sink,
        CursorFile(tmp_path / "cursor", destination=DESTINATION.text, log=SIGNER.name),
        pace=ExportPace(first_retry_s=0, longest_retry_s=0),
        own_kinds=OWN_KINDS,
    )
    watch = watch_of(bench, exporter)
    num_others = 3
    for number in range(num_others):
        await bench.trail.append(Kind.KEYS_LISTED, SYSTEM, str(number), {})
        exporter.wake()
        while exporter.status.next_index < bench.writer.head.size or exporter.status.failure is not None:
            await watch.examine()
            exporter.wake()
        size = None
        while size != bench.writer.head.size:  # until a whole round of looks adds nothing
            size = bench.writer.head.size
            while exporter.status.next_index < size:
                await watch.examine()
                exporter.wake()
            await watch.examine()
    assert exporter.close(60)
    assert sink.taken == list(range(bench.writer.head.size))
    assert bench.writer.head.size <= 3 * num_others


def test_certificates_that_cannot_be_read_stop_the_start(bench: WalkBench, tmp_path: Path) -> None:
    """Named with the setting, before anything is sent to anybody."""
    settings = Settings(siem_exports=("cef+tls://localhost:6514",), siem_ca_file=tmp_path / "none.pem")
    with pytest.raises(SettingsRefused, match=r"CLOISTER_SIEM_CA_FILE: .*none\.pem"):
        SiemExports.start(settings, StateLayout(tmp_path), SIGNER.name, bench.reader, lambda: None)
