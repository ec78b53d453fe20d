"""The engine process: loads and verifies one model, then steps while there is work and sleeps while there is none.

Started by `engine.worker_process` as `python -m engine.worker FD PARENT_PID`; everything else comes over the socket.
Invariants: one thread and one loop own the core; a request that the core refuses is answered to that request alone;
an exception in a step ends the process, with words that name code and never data.  Never: a listening socket, a
network, an environment variable as input, a file that the configuration does not name.
"""

from __future__ import annotations

import contextlib
import faulthandler
import socket
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from engine.batch import Batch
from engine.config import EngineConfig
from engine.errors import RequestRefused
from engine.faults import IntegrityBroken, LoadBroken, UnexpectedMessage, fault_of
from engine.health import EngineInfo
from engine.observed_runner import BeforeForward
from engine.process_ties import ignore_terminal, stay_with_parent
from engine.request import GenerationRequest, StepEvent
from engine.stats import CoreStats
from engine.weights.errors import LoadError
from engine.wire import (
    Add,
    Cancel,
    Configure,
    FrameTooLarge,
    Loaded,
    LoadFailed,
    Refused,
    Started,
    Step,
    Stop,
    ToWorker,
)
from engine.worker_link import ServiceGone, ServiceLink

IDLE_CHECK_AFTER_S = 1.0
"""Silence after work before the core's books are checked; long enough to keep the check out of a conversation."""


class ExitStatus(IntEnum):
    """How the process ended; the service's words for it come from `Fault` and the signal."""

    STOPPED = 0
    """Ordered to, or the service is gone."""
    LOAD_FAILED = 3
    FAULT = 4


class Core(Protocol):
    """What the loop needs of `engine.core.EngineCore`."""

    def add(self, request: GenerationRequest) -> None:
        """Queue it.  Raises RequestRefused when it can never be served; then nothing of it is kept."""
        ...

    def cancel(self, request_id: str) -> None:
        """End it in the next step; unknown ids are ignored."""
        ...

    def step(self) -> tuple[StepEvent, ...]:
        """Compute one batch and commit it."""
        ...

    def has_work(self) -> bool:
        """Whether a step would do anything."""
        ...

    def stats(self) -> CoreStats:
        """Gauges as of now."""
        ...

    def check_integrity(self) -> None:
        """Raise AssertionError when the books do not balance."""
        ...


BuildCore = Callable[[EngineConfig, BeforeForward], tuple[Core, EngineInfo]]
"""Load, verify and compose; the core must call the second argument with each batch before computing it."""


class StartedRequests:
    """Says of each live request once that a step is about to compute it for the first time."""

    def __init__(self, link: ServiceLink) -> None:
        self._link = link
        self._request_ids: set[str] = set()

    def announce(self, batch: Batch) -> None:
        """Send what is new in this batch, before it is computed."""
        fresh = tuple({chunk.request_id: None for chunk in batch.chunks if chunk.request_id not in self._request_ids})
        if fresh:
            self._request_ids.update(fresh)
            self._link.send(Started(fresh))

    def forget(self, events: tuple[StepEvent, ...]) -> None:
        """Let the ids of ended requests be used again."""
        self._request_ids.difference_update(event.request_id for event in events if event.finish is not None)


def run(sock: socket.socket, build_core: BuildCore) -> ExitStatus:
    """Load, then serve until there is nobody to serve; the whole life of the process.

    Args:
        sock: the worker's end; its first message is `Configure`.
        build_core: loads and verifies the model.
    """
    link = ServiceLink(sock)
    started = StartedRequests(link)
    try:
        config = receive_config(link)
        try:
            core, engine_info = build_core(config, started.announce)
        except LoadError as refused:
            link.send(LoadFailed(refused.file, refused.reason, refused.hint))
            return ExitStatus.LOAD_FAILED
        except Exception as error:
            raise LoadBroken from error
        link.send(Loaded(engine_info))
        serve(link, core, started)
    except ServiceGone:
        return ExitStatus.STOPPED
    except Exception as error:  # noqa: BLE001 - the process ends here, and must say why without saying whose data it was
        fault = fault_of(error)
        print(f"engine process: {fault.code} {fault.exception} {fault.where}", file=sys.stderr, flush=True)  # noqa: T201
        with contextlib.suppress(ServiceGone):
            link.send(fault)
        return ExitStatus.FAULT
    return ExitStatus.STOPPED


def receive_config(link: ServiceLink) -> EngineConfig:
    """Wait for the first message."""
    messages = link.receive(timeout_s=None)
    if len(messages) != 1 or not isinstance(messages[0], Configure):
        raise UnexpectedMessage
    return messages[0].config


def serve(link: ServiceLink, core: Core, started: StartedRequests) -> None:
    """Take messages in between steps; step while there is work; check the books once it has been quiet.

    Returns when it is told to stop.
    """
    is_checked = True
    while True:
        is_idle = not core.has_work()
        wait_s = 0.0 if not is_idle else None if is_checked else IDLE_CHECK_AFTER_S
        messages = link.receive(wait_s)
        for message in messages:
            if isinstance(message, Stop):
                return
            take(link, core, message)
        if core.has_work():
            is_checked = False
            events = core.step()
            started.forget(events)
            send_step(link, events, core.stats())
        elif is_idle and not messages:
            check_integrity(core)
            is_checked = True


def send_step(link: ServiceLink, events: tuple[StepEvent, ...], core_stats: CoreStats) -> None:
    """Send what a step did: one frame, or several when logprobs of a whole vocabulary make it too large."""
    try:
        link.send(Step(events, core_stats))
    except FrameTooLarge:
        if len(events) == 1:
            raise  # logprobs of more than a million tokens at one position: no vocabulary is that large
        middle = len(events) // 2
        send_step(link, events[:middle], core_stats)
        send_step(link, events[middle:], core_stats)


def take(link: ServiceLink, core: Core, message: ToWorker) -> None:
    """Give one message to the core."""
    match message:
        case Add(request):
            try:
                core.add(request)
            except RequestRefused as refused:
                link.send(Refused(request.request_id, refused.code))
            except Exception:
                link.send(Started((request.request_id,)))  # it must not be tried again on the next process
                raise
        case Cancel(request_id):
            core.cancel(request_id)
        case _:
            raise UnexpectedMessage


def check_integrity(core: Core) -> None:
    """End the process rather than serve from books that do not balance."""
    try:
        core.check_integrity()
    except AssertionError as error:
        raise IntegrityBroken from error


def start(arguments: list[str], build_core: BuildCore) -> ExitStatus:
    """Become an engine process.

    Args:
        arguments: number of the inherited socket, process id of the parent.
        build_core: see `run`.
    """
    ignore_terminal()
    faulthandler.enable()
    descriptor, parent_pid = (int(argument) for argument in arguments)
    stay_with_parent(parent_pid)
    with socket.socket(fileno=descriptor) as sock:
        sock.set_inheritable(False)
        return run(sock, build_core)


def load_and_build(config: EngineConfig, before_forward: BeforeForward) -> tuple[Core, EngineInfo]:
    """Load the model; torch is imported here, after the process has been tied to its parent."""
    from engine.assembly import build_core  # noqa: PLC0415

    return build_core(config, before_forward)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:], load_and_build))
