"""The appliance's own anchoring: who gets which head, what a sink that hangs can hold up, and what the log hears."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from walk_bench import SIGNER, WalkBench

from appliance.anchors.keeper import Anchoring, SinkKeeper
from appliance.anchors.watch import AnchorWatch
from appliance.audit_trail import SYSTEM, Kind
from appliance.settings import Settings, SettingsRefused, read_settings
from audit.anchoring.directory import MARKER, DirectorySink
from audit.anchoring.evidence import read_anchors
from audit.anchoring.head import SignedHead
from audit.anchoring.sink import Anchored
from audit.errors import AnchorAhead, AnchorFailed, AuditCorrupt

ENOUGH_S = 60.0


class Sink:
    """Does what it is told: takes, refuses, or waits until it may."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sizes: list[int] = []
        self.failure: Exception | None = None
        self.may_end = threading.Event()
        self.may_end.set()

    def anchor(self, head: SignedHead, _deadline_at: float) -> Anchored:
        """Act."""
        assert self.may_end.wait(ENOUGH_S)
        if self.failure is not None:
            raise self.failure
        self.sizes.append(head.checkpoint.size)
        return Anchored(head.checkpoint.size)


class Turns:
    """Counts the turns of an anchoring, and waits for the one after which something holds."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def count(self) -> None:
        """Take one turn."""
        self._next.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait."""
        async with asyncio.timeout(ENOUGH_S):
            while not holds():
                self._next.clear()
                await self._next.wait()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WalkBench]:
    """A real log."""
    made = WalkBench(tmp_path)
    yield made
    made.close()


def newest(bench: WalkBench) -> SignedHead:
    """Read the head as the appliance does."""
    head = bench.reader.head()
    return SignedHead(head.checkpoint, head.note)


async def record(bench: WalkBench) -> None:
    """Let the head move."""
    await bench.trail.append(Kind.LOG_READ, SYSTEM, "test", {})


def recorded(bench: WalkBench) -> list[tuple[str, str]]:
    """What the log heard of anchors: kind and subject."""
    events = [entry.leaf.event for entry in bench.reader.entries(limit=1000).entries]
    return [(event.kind, event.subject) for event in events if event.kind.startswith("anchor:")]


async def test_a_head_is_offered_once_and_again_when_it_moved(bench: WalkBench) -> None:
    """An idle log costs a sink nothing."""
    sink = Sink("one")
    keeper = SinkKeeper(sink, lambda: newest(bench), ENOUGH_S)
    for _ in range(3):
        await keeper.attempt()
    await record(bench)
    await keeper.attempt()
    assert sink.sizes == [0, 1]
    assert (keeper.status.size, keeper.status.num_taken, keeper.status.code) == (1, 2, None)


async def test_a_sink_that_hangs_holds_up_no_other_and_no_stop(bench: WalkBench) -> None:
    """Its attempt counts as failed at the deadline, none is begun beside it, and the end comes without it."""
    hanging, sound = Sink("hanging"), Sink("sound")
    hanging.may_end.clear()
    turns = Turns()
    anchoring = Anchoring([hanging, sound], lambda: newest(bench), interval_s=0.01, deadline_s=0.05, tell=turns.count)
    anchoring.start()
    await turns.until(lambda: bool(sound.sizes) and anchoring.keepers[0].status.num_failed > 1)
    await record(bench)
    await turns.until(lambda: sound.sizes[-1] == 1)
    await asyncio.wait_for(anchoring.finish(), ENOUGH_S)
    assert anchoring.keepers[0].status.code == "anchor_late"
    assert hanging.sizes == []
    hanging.may_end.set()


async def test_a_stop_that_meets_the_end_of_an_attempt_is_a_stop(bench: WalkBench) -> None:
    """Both in one turn of the event loop: the answer does not make the task forget that it was told to end."""
    sink = Sink("one")
    sink.may_end.clear()
    keeper = SinkKeeper(sink, lambda: newest(bench), ENOUGH_S)
    attempt = asyncio.create_task(keeper.attempt())
    while (pending := keeper._pending) is None:  # noqa: ASYNC110 - a turn of the loop, not a time
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    pending.add_done_callback(lambda _: attempt.cancel())
    sink.may_end.set()
    async with asyncio.timeout(ENOUGH_S):
        await asyncio.wait({attempt})
    assert attempt.cancelled()


async def test_a_sink_that_hung_is_asked_again_once_it_came_back(bench: WalkBench) -> None:
    """Late once, then sound."""
    sink = Sink("slow")
    sink.may_end.clear()
    keeper = SinkKeeper(sink, lambda: newest(bench), 0.05)
    await keeper.attempt()
    assert keeper.status.code == "anchor_late"
    sink.may_end.set()
    await keeper.last_attempt()
    assert (keeper.status.code, keeper.status.num_failed) == (None, 1)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (AnchorFailed("full"), "anchor_failed"),
        (AnchorAhead("newer"), "anchor_ahead"),
        (LookupError("a bug"), "anchor_failed"),
    ],
)
async def test_each_way_to_fail_has_its_code(bench: WalkBench, failure: Exception, code: str) -> None:
    """Also a fault of ours: it is said and stops nothing."""
    sink = Sink("one")
    sink.failure = failure
    keeper = SinkKeeper(sink, lambda: newest(bench), ENOUGH_S)
    await keeper.attempt()
    assert keeper.status.code == code
    assert str(failure) in keeper.status.reason


@pytest.mark.parametrize("failure", [AuditCorrupt(None, "damaged"), OSError("damaged"), RuntimeError("damaged")])
async def test_a_head_that_cannot_be_read_is_no_head(bench: WalkBench, failure: Exception) -> None:
    """The sink is not asked, the status says why, and once it can be read the anchoring goes on."""
    sink, turns = Sink("one"), Turns()
    is_readable = False

    def read() -> SignedHead:
        if not is_readable:
            raise failure
        return newest(bench)

    anchoring = Anchoring([sink], read, interval_s=0.001, deadline_s=ENOUGH_S, tell=turns.count)
    [keeper] = anchoring.keepers
    anchoring.start()
    await turns.until(lambda: "damaged" in keeper.status.reason)
    assert sink.sizes == []
    is_readable = True
    await turns.until(lambda: sink.sizes == [0])
    await asyncio.wait_for(anchoring.finish(), ENOUGH_S)
    assert keeper.status.code is None


async def test_the_log_hears_once_that_a_sink_fails_and_once_that_it_recovered(bench: WalkBench) -> None:
    """However often it fails, and across a restart; each of the two records is one leaf."""
    sink = Sink("directory:/media/anchors")
    sink.failure = AnchorFailed("no medium")
    for _ in range(3):  # three runs of the appliance
        anchoring = Anchoring([sink], lambda: newest(bench), deadline_s=ENOUGH_S)
        watch = AnchorWatch(anchoring, bench.trail, bench.reader)
        for _ in range(3):
            await anchoring.keepers[0].attempt()
            await watch.examine()
    assert recorded(bench) == [("anchor:failing", sink.name)]
    [entry] = bench.reader.entries(limit=1000).entries
    assert entry.leaf.event.facts["reason"] == "no medium"
    sink.failure = None
    anchoring = Anchoring([sink], lambda: newest(bench), deadline_s=ENOUGH_S)
    watch = AnchorWatch(anchoring, bench.trail, bench.reader)
    await watch.examine()
    assert len(recorded(bench)) == 1, "before its first attempt nobody knows that it recovered"
    for _ in range(3):
        await anchoring.keepers[0].attempt()
        await watch.examine()
    assert recorded(bench) == [("anchor:failing", sink.name), ("anchor:recovered", sink.name)]


async def test_an_idle_appliance_does_not_grow_its_log_by_anchoring(bench: WalkBench) -> None:
    """A hundred rounds with one sound and one failing sink: one leaf."""
    sound, failing = Sink("sound"), Sink("failing")
    failing.failure = AnchorFailed("gone")
    anchoring = Anchoring([sound, failing], lambda: newest(bench), deadline_s=ENOUGH_S)
    watch = AnchorWatch(anchoring, bench.trail, bench.reader)
    for _ in range(100):
        for keeper in anchoring.keepers:
            await keeper.attempt()
        await watch.examine()
    assert bench.reader.head().checkpoint.size == 1
    assert sound.sizes == [0, 1]


async def test_the_last_head_leaves_the_box_at_a_stop(bench: WalkBench, tmp_path: Path) -> None:
    """On a real medium, and the log verifies against it."""
    (tmp_path / "medium").mkdir()
    (tmp_path / "medium" / MARKER).touch()
    anchoring = Anchoring([DirectorySink(tmp_path / "medium")], lambda: newest(bench), deadline_s=ENOUGH_S)
    anchoring.start()
    await record(bench)
    await anchoring.finish()
    anchors = read_anchors(tmp_path / "medium", [SIGNER.verifier]).anchors
    assert anchors[-1].source.endswith("/1.checkpoint")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLOISTER_ANCHOR_DIRECTORIES", '["media"]'),
        ("CLOISTER_ANCHOR_DIRECTORIES", '["/a", "/a"]'),
        ("CLOISTER_ANCHOR_SYSLOG", '["/dev/log"]'),
        ("CLOISTER_ANCHOR_WITNESSES", '[{"url": "ftp://w", "vkey": "x"}]'),
        ("CLOISTER_ANCHOR_WITNESSES", '[{"url": "http://w", "vkey": "w+01020304+AAAA"}]'),
        ("CLOISTER_ANCHOR_WITNESSES", '[{"url": "http://w"}]'),
        ("CLOISTER_ANCHOR_INTERVAL_S", "0"),
    ],
)
def test_a_place_that_cannot_be_one_stops_the_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """And the message names the setting."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsRefused, match=name):
        read_settings()
    assert Settings.model_fields["anchor_syslog"].default == ()
