"""One thread for one sink: a sink that hangs holds up nobody, not even the end of the process."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from anchored_logs import Tree, numbered

from audit.anchoring.runner import SinkThread
from audit.anchoring.sink import Anchored
from audit.errors import AnchorFailed

HEAD = Tree(numbered(3)).head(3)
ENOUGH_S = 60.0


class Sink:
    """Waits until it is told what to do."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.go = threading.Event()
        self.failure: Exception | None = None

    def anchor(self, head, _deadline_at) -> Anchored:
        """Wait."""
        assert self.go.wait(ENOUGH_S)
        if self.failure is not None:
            raise self.failure
        return Anchored(head.checkpoint.size)


def test_a_sink_that_hangs_does_not_hold_up_another() -> None:
    """The second comes back while the first waits; the first is known to be at work and takes nothing more."""
    hanging, sound = Sink("hanging"), Sink("sound")
    sound.go.set()
    threads = [SinkThread(hanging), SinkThread(sound)]
    waiting = threads[0].start(HEAD, ENOUGH_S)
    assert threads[1].start(HEAD, ENOUGH_S).result(ENOUGH_S).size == 3
    assert threads[0].is_busy
    with pytest.raises(AssertionError, match="still at its last attempt"):
        threads[0].start(HEAD, ENOUGH_S)
    hanging.go.set()
    assert waiting.result(ENOUGH_S).size == 3
    for thread in threads:
        thread.close()


def test_what_a_sink_raises_reaches_the_one_who_asked_and_the_thread_goes_on() -> None:
    """A refusal, a bug, and then a success."""
    sink = Sink("sound")
    sink.go.set()
    thread = SinkThread(sink)
    for failure in (AnchorFailed("full"), LookupError("a bug")):
        sink.failure = failure
        assert thread.start(HEAD, ENOUGH_S).exception(ENOUGH_S) is failure
    sink.failure = None
    assert thread.start(HEAD, ENOUGH_S).result(ENOUGH_S).size == 3
    thread.close()


def test_a_process_ends_while_a_sink_hangs() -> None:
    """Nobody joins its thread."""
    program = """
import threading
from audit.anchoring.runner import SinkThread
class Sink:
    name = "hangs"
    def anchor(self, head, _deadline_at):
        begun.set()
        threading.Event().wait()
begun = threading.Event()
SinkThread(Sink()).start(None, 60)
begun.wait()
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
