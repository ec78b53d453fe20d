"""One thread for one sink, so that a sink that hangs holds up nothing but itself.

Promise: at most one attempt at a time, so that hanging attempts cannot pile up; the thread ends with the process,
whatever it waits for, and nobody ever joins it.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeAlias

from audit.anchoring.head import SignedHead
from audit.anchoring.sink import Anchored, AnchorSink

_Job: TypeAlias = tuple[SignedHead, float, "Future[Anchored]"]


class SinkThread:
    """Runs the attempts of one sink; its owner asks from one thread."""

    def __init__(self, sink: AnchorSink) -> None:
        self._sink = sink
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._latest: Future[Anchored] | None = None
        Thread(target=self._run, name=f"anchor {sink.name}", daemon=True).start()

    @property
    def name(self) -> str:
        """The sink's."""
        return self._sink.name

    @property
    def is_busy(self) -> bool:
        """Whether the last attempt has not come back yet."""
        return self._latest is not None and not self._latest.done()

    def start(self, head: SignedHead, deadline_s: float) -> Future[Anchored]:
        """Begin an attempt; the future gives `Anchored` or `AnchorFailed`, whenever the sink comes back."""
        assert not self.is_busy, f"{self.name} is still at its last attempt"
        self._latest = Future()
        self._jobs.put((head, time.monotonic() + deadline_s, self._latest))
        return self._latest

    def close(self) -> None:
        """Let the thread end after what it does now; waits for nothing."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            head, deadline_at, future = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                anchored = self._sink.anchor(head, deadline_at)
            except BaseException as error:  # noqa: BLE001 - the one who waits decides what it means
                future.set_exception(error)
            else:
                future.set_result(anchored)
