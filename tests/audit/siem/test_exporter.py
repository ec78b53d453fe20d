from __future__ import annotations

import contextlib
import dataclasses
import json
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from audit_log_builder import OTHER_SIGNER, SIGNER, attacker, build_log, event_now, make_event
from log_places import LogPlace
from siem_leaves import NAME

from audit.beside import Floor, Pruned
from audit.errors import AuditRefused
from audit.reader import AuditReader
from audit.siem.copy_check import check_copy
from audit.siem.copy_lines import read_line
from audit.siem.cursor import Cursor, CursorFile
from audit.siem.destination import Destination
from audit.siem.exporter import Exporter, ExportPace, ExportStatus
from audit.siem.file_sink import FileSink
from audit.siem.sink import SinkFailed
from audit.writer import AuditWriter

OpenWriter = Callable[..., AuditWriter]
DESTINATION = Destination.parse("jsonl+file:///copy")
SOON = ExportPace(max_batch_len=4, first_retry_s=0.001, longest_retry_s=0.001)


@contextlib.contextmanager
def small_files(limit: int) -> Iterator[None]:
    """Let no file of this process grow beyond a limit: the kernel then takes a part of a write, and refuses more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


class Changed:
    """Lets a test wait for what the thread does, by conditions and not by time."""

    def __init__(self) -> None:
        self._condition = threading.Condition()

    def tell(self) -> None:
        """Something changed."""
        with self._condition:
            self._condition.notify_all()

    def wait_for(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds."""
        with self._condition:
            assert self._condition.wait_for(holds, timeout=60), "it never came to that"


class ScriptedSink:
    """Takes events unless told otherwise, and enforces its contract: after `close` nothing is given to it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        """Indexes of each batch that was taken."""
        self.offered: list[list[int]] = []
        self.failing = False
        self.gate: threading.Event | None = None
        """Waited for inside `take`: a sink that hangs."""
        self.changed = Changed()
        self.num_closed = 0

    @property
    def indexes(self) -> list[int]:
        """Everything that was taken, in order."""
        return [index for batch in self.batches for index in batch]

    def take(self, events: Sequence[bytes]) -> None:
        """Follow the script."""
        assert not self.num_closed, "given events after it was closed"
        self.offered.append([read_line(event.rstrip()).index for event in events])
        self.changed.tell()
        if self.gate is not None:
            self.gate.wait()
        if self.failing:
            raise SinkFailed("told to")
        self.batches.append(self.offered[-1])
        self.changed.tell()

    def close(self) -> None:
        """Count."""
        self.num_closed += 1


class Bench:
    """Exporters of one log, one after the other over one cursor."""

    def __init__(self, log_path: Path) -> None:
        self.cursor_path = log_path.with_name("cursor.json")
        self.reader = AuditReader(log_path)
        self.exporters: list[Exporter] = []

    def cursor_file(self) -> CursorFile:
        """Give the one there is."""
        return CursorFile(self.cursor_path, destination=DESTINATION.text, log=NAME.origin)

    def start(self, sink: ScriptedSink, **arguments) -> Exporter:
        """Start an exporter."""
        arguments = {"pace": SOON, "on_change": sink.changed.tell, **arguments}
        exporter = Exporter(DESTINATION, NAME, self.reader, sink, self.cursor_file(), **arguments)
        self.exporters.append(exporter)
        return exporter

    def close(self) -> None:
        """Let everything go."""
        for exporter in self.exporters:
            exporter.close(60)
        self.reader.close()


@pytest.fixture
def bench(log_path: Path) -> Iterator[Bench]:
    """Over the log of the fixture."""
    bench = Bench(log_path)
    yield bench
    bench.close()


def append(writer: AuditWriter, count: int, kind: str = "log:read") -> None:
    """Append so many leaves, each durable."""
    for number in range(count):
        writer.submit(event_now(number, kind)).result()


def reached(exporter: Exporter, next_index: int) -> Callable[[], bool]:
    """Say when a status shows this place."""
    return lambda: exporter.status.next_index == next_index


def test_the_whole_log_is_copied_in_order_and_then_what_comes(open_writer: OpenWriter, bench: Bench) -> None:
    """From the first leaf on, in bounded batches, each leaf once; a wake-up brings the new ones."""
    writer = open_writer()
    append(writer, 10)
    sink = ScriptedSink()
    exporter = bench.start(sink)
    sink.changed.wait_for(lambda: len(sink.indexes) == 10)
    append(writer, 3)
    exporter.wake()
    sink.changed.wait_for(lambda: len(sink.indexes) == 13)
    assert exporter.close(60)
    assert sink.indexes == list(range(13))
    assert max(map(len, sink.batches)) <= SOON.max_batch_len
    assert sink.num_closed == 1
    assert exporter.status == ExportStatus(13, 13, None, None, 0, None, concerns_others=True)


def test_a_log_in_each_store_is_copied_and_its_copy_checked(
    place: LogPlace, open_writer: OpenWriter, tmp_path: Path
) -> None:
    """A file or a database: the same leaves, the same hashes, found again in the copy."""
    writer, copy = open_writer(), tmp_path / "copy.jsonl"
    append(writer, 10)
    destination = Destination.parse(f"jsonl+file://{copy}")
    cursor = CursorFile(tmp_path / "cursor", destination=destination.text, log=NAME.origin)
    with AuditReader(place.reader) as reader:
        exporter = Exporter(destination, NAME, reader, FileSink(copy, max_bytes=2**20, max_files=1), cursor)
        append(writer, 10)
        assert exporter.close(60)
        with copy.open("rb") as file:
            report = check_copy([("copy", file)], reader, from_index=0)
    assert (report.ok, report.num_matching, report.num_behind) == (True, 20, 0)


def test_the_next_run_goes_on_where_the_last_one_came_to(open_writer: OpenWriter, bench: Bench) -> None:
    """Nothing twice after an end in order, nothing left out."""
    writer = open_writer()
    append(writer, 5)
    first, second = ScriptedSink(), ScriptedSink()
    assert bench.start(first).close(60)
    append(writer, 5)
    assert bench.start(second).close(60)
    assert (first.indexes, second.indexes) == ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9])


@pytest.mark.parametrize("crash", ["before the cursor moved", "after the cursor moved"])
def test_a_crash_around_the_cursor_sends_again_and_never_skips(
    open_writer: OpenWriter, bench: Bench, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    """Fault pair: the sink has the batch; whether or not the cursor tells, the next run leaves no gap."""
    append(open_writer(), 6)
    real = CursorFile.move

    def move(self: CursorFile, cursor: Cursor) -> None:
        if cursor.next_index > 4:
            if crash == "after the cursor moved":
                real(self, cursor)
            raise SystemExit  # ends the thread where it stands, as a crash does
        real(self, cursor)

    died = threading.Event()
    first = ScriptedSink()
    with monkeypatch.context() as patched:
        patched.setattr(CursorFile, "move", move)
        patched.setattr(threading, "excepthook", lambda _: died.set())
        assert bench.start(first).close(60)
    second = ScriptedSink()
    assert bench.start(second).close(60)
    assert first.indexes == list(range(6))
    assert second.indexes == ([4, 5] if crash == "before the cursor moved" else [])


def test_a_failing_sink_is_tried_again_and_loses_nothing(open_writer: OpenWriter, bench: Bench) -> None:
    """The status says why while it fails; the cursor stands; then everything comes, in order."""
    append(open_writer(), 6)
    sink = ScriptedSink()
    sink.failing = True
    exporter = bench.start(sink)
    sink.changed.wait_for(lambda: exporter.status.num_failures > 3)
    failed = exporter.status
    assert (failed.failure, failed.failure_code, failed.next_index) == ("told to", "sink_failed", 0)
    assert (failed.busy_since, failed.concerns_others) == (None, True)
    assert bench.cursor_file().load() is None
    sink.failing = False
    sink.changed.wait_for(lambda: len(sink.indexes) == 6)
    assert exporter.close(60)
    assert sink.indexes == list(range(6))
    assert exporter.status.failure is None


def test_a_sink_that_hangs_holds_up_nobody_else(open_writer: OpenWriter, bench: Bench) -> None:
    """Appends go on, the status says since when, closing gives up on it and says so."""
    writer = open_writer()
    append(writer, 2)
    sink = ScriptedSink()
    sink.gate = threading.Event()
    exporter = bench.start(sink, monotonic=lambda: 41.5)
    sink.changed.wait_for(lambda: bool(sink.offered))
    append(writer, 2)
    exporter.wake()
    assert exporter.status.busy_since == 41.5
    assert not exporter.close(0)
    sink.gate.set()
    assert exporter.close(60)
    assert sink.indexes == [0, 1, 2, 3]
    assert bench.cursor_file().load() is not None


def test_leaves_about_exports_alone_are_no_failure_to_tell_of(open_writer: OpenWriter, bench: Bench) -> None:
    """A sink that fails on them would otherwise make the next one, without end."""
    writer = open_writer()
    append(writer, 1)
    sink = ScriptedSink()
    exporter = bench.start(sink, own_kinds={"export:failing"})
    sink.changed.wait_for(lambda: sink.indexes == [0])
    sink.failing = True
    append(writer, 1, "export:failing")
    exporter.wake()
    sink.changed.wait_for(lambda: exporter.status.failure is not None)
    assert not exporter.status.concerns_others
    append(writer, 1)
    sink.changed.wait_for(lambda: exporter.status.concerns_others)
    assert sink.offered[-1] == [1, 2]


def test_a_log_that_was_cut_behind_the_cursor_is_not_copied_on(bench: Bench) -> None:
    """The cursor knows of a leaf that the log has no more: said, and nothing is sent."""
    bench.cursor_file().move(Cursor(3, "ab" * 32))
    sink = ScriptedSink()
    exporter = bench.start(sink)
    sink.changed.wait_for(lambda: exporter.status.failure_code == "log_differs")
    assert "cut or rolled back" in str(exporter.status.failure)
    assert sink.offered == []


def test_another_log_of_the_same_name_is_not_copied_on(tmp_path: Path) -> None:
    """The hash under the cursor is another one."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        events = [dataclasses.replace(make_event(number), actor=folder) for number in range(4)]
        build_log(tmp_path / folder / "audit.db", events, [4], SIGNER if folder == "a" else OTHER_SIGNER)
    first = Bench(tmp_path / "a" / "audit.db")
    taken = ScriptedSink()
    assert first.start(taken).close(60)
    first.close()
    first.cursor_path.rename(tmp_path / "b" / "cursor.json")
    second = Bench(tmp_path / "b" / "audit.db")
    sink = ScriptedSink()
    exporter = second.start(sink)
    sink.changed.wait_for(lambda: exporter.status.failure_code == "log_differs")
    assert "replaced" in str(exporter.status.failure)
    second.close()
    assert (taken.indexes, sink.offered) == ([0, 1, 2, 3], [])


def test_a_gap_in_the_log_is_not_jumped_over(open_writer: OpenWriter, log_path: Path, bench: Bench) -> None:
    """Leaves that were taken away before they were copied: said with their index."""
    append(open_writer(), 6)
    bench.cursor_file().move(Cursor(0, ""))
    with attacker(log_path) as raw:
        raw.execute("DELETE FROM leaf WHERE idx < 3")
    sink = ScriptedSink()
    exporter = bench.start(sink)
    sink.changed.wait_for(lambda: exporter.status.failure is not None)
    assert "entry 0: the leaf is missing" in str(exporter.status.failure)
    assert sink.offered == []


async def test_a_log_pruned_ahead_of_the_cursor_is_told_and_pruned_behind_it_is_not(
    open_writer: OpenWriter, log_path: Path
) -> None:
    """Entries that nobody copied are gone: said.  Those that were copied may go, also to the very last of them."""
    writer = open_writer()
    append(writer, 256)
    copied, behind, fresh = (Bench(log_path) for _ in range(3))
    for number, bench in enumerate((copied, behind, fresh)):
        bench.cursor_path = log_path.with_name(f"cursor-{number}")
    assert copied.start(ScriptedSink()).close(60)
    behind.cursor_file().move(Cursor(100, "ab" * 32))
    await writer.prune(event_now(0, "log:pruned"), Floor(Pruned.LEAF, 256))
    sinks = [ScriptedSink() for _ in range(3)]
    exporters = [bench.start(sink) for bench, sink in zip((copied, behind, fresh), sinks, strict=True)]
    sinks[1].changed.wait_for(lambda: exporters[1].status.failure_code == "log_differs")
    assert "entries 100 to 255 were pruned" in str(exporters[1].status.failure)
    for sink in (sinks[0], sinks[2]):
        sink.changed.wait_for(lambda sink=sink: sink.indexes == [256])
    for bench in (copied, behind, fresh):
        bench.close()


@pytest.mark.parametrize("change", ["not json", "destination", "log", "next_index", "more", "v"])
def test_a_cursor_of_something_else_is_refused(bench: Bench, change: str) -> None:
    """Never guessed at, never overwritten: the file is named, with the remedy."""
    bench.cursor_file().move(Cursor(1, "ab" * 32))
    found = json.loads(bench.cursor_path.read_text())
    values = {"destination": "x", "log": "x", "next_index": -1, "more": 1, "v": 2}
    text = "{" if change == "not json" else json.dumps({**found, change: values[change]})
    bench.cursor_path.write_text(text)
    with pytest.raises(AuditRefused, match=str(bench.cursor_path)):
        bench.cursor_file().load()
    sink = ScriptedSink()
    exporter = bench.start(sink)
    sink.changed.wait_for(lambda: exporter.status.failure_code == "log_unreadable")
    assert sink.offered == []
    assert bench.cursor_path.read_text() == text


def test_a_fault_of_ours_is_told_and_ends_no_copy(
    open_writer: OpenWriter, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread lives on, says what broke without its message, and goes on once it works."""
    append(open_writer(), 2)
    sink = ScriptedSink()

    def break_down(*_: object) -> bytes:
        raise LookupError("a secret text")

    with monkeypatch.context() as patched:
        patched.setattr(Destination, "encode", break_down)
        exporter = bench.start(sink)
        sink.changed.wait_for(lambda: exporter.status.failure_code == "internal_error")
        assert exporter.status.failure == "LookupError"
    sink.changed.wait_for(lambda: sink.indexes == [0, 1])


def test_a_cursor_that_cannot_be_moved_is_told_and_the_batch_sent_again(
    open_writer: OpenWriter, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk under the cursor: the sink has the leaves, and gets them once more."""
    append(open_writer(), 2)
    sink = ScriptedSink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(CursorFile, "move", full)
        exporter = bench.start(sink)
        sink.changed.wait_for(lambda: exporter.status.failure_code == "cursor_refused")
    sink.changed.wait_for(lambda: exporter.status.next_index == 2)
    assert exporter.close(60)
    assert set(sink.indexes) == {0, 1}
    assert len(sink.indexes) > 2


def test_a_log_that_cannot_be_read_is_tried_again(
    open_writer: OpenWriter, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sink has done nothing wrong, and the code says so."""
    append(open_writer(), 1)
    sink = ScriptedSink()
    with monkeypatch.context() as patched:

        def refuse(*_: object, **__: object) -> None:
            raise AuditRefused("no")

        patched.setattr(AuditReader, "entries", refuse)
        exporter = bench.start(sink)
        sink.changed.wait_for(lambda: exporter.status.failure_code == "log_unreadable")
    sink.changed.wait_for(lambda: sink.indexes == [0])


def test_a_cursor_that_the_disk_took_in_part_is_not_moved(tmp_path: Path) -> None:
    """A disk that fills up takes a few bytes first, and only then refuses: the old cursor stands whole."""
    file = CursorFile(tmp_path / "cursor", destination=DESTINATION.text, log=NAME.origin)
    file.move(Cursor(4, "ab" * 32))
    with small_files(60), pytest.raises(OSError, match="File too large"):
        file.move(Cursor(5, "cd" * 32))
    assert file.load() == Cursor(4, "ab" * 32)
