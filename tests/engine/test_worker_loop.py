"""The loop of the engine process, run in this process over a socket pair: its answers to a service that misbehaves."""

from __future__ import annotations

import socket
import struct
import threading

import pytest
import scripted_worker
from scripted_service import ask

from engine import wire, worker
from engine.config import EngineConfig
from engine.request import StepEvent, TokenLogprobs
from engine.stats import CoreStats
from engine.worker_link import ServiceLink


class RawService:
    """The service's end of a socket pair whose other end is served by a thread."""

    def __init__(self, folder):
        self.socket, self._theirs = socket.socketpair()
        self.socket.settimeout(30)
        self._reader = wire.FrameReader()
        self._arrived = []
        self.status = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.config = EngineConfig(model_dir=str(folder), file_digests=())

    def _serve(self):
        with self._theirs:
            self.status = worker.run(self._theirs, scripted_worker.build_core)

    def send(self, *messages):
        """Send in order."""
        self.socket.sendall(b"".join(wire.encode_frame(message) for message in messages))

    def receive(self):
        """The next message, or None at the end."""
        while not self._arrived:
            data = self.socket.recv(65536)
            if not data:
                return None
            self._arrived += self._reader.feed(data)
        return wire.decode_from_worker(self._arrived.pop(0))

    def end(self):
        """Everything until the worker closes, and how it ended."""
        rest = []
        while (message := self.receive()) is not None:
            rest.append(message)
        self._thread.join(30)
        return rest, self.status

    def close(self):
        """Go away."""
        self.socket.close()
        self._thread.join(30)


@pytest.fixture
def raw(tmp_path):
    """A worker that waits for its configuration."""
    service = RawService(tmp_path)
    yield service
    service.close()


@pytest.fixture
def loaded(raw):
    """A worker that serves."""
    raw.send(wire.Configure(raw.config))
    assert isinstance(raw.receive(), wire.Loaded)
    return raw


@pytest.mark.parametrize(
    "garbage",
    [struct.pack(">I", 2**32 - 1), struct.pack(">I", 0), struct.pack(">I", 3) + b"abc", b"GET / HTTP/1.1\r\n\r\n"],
    ids=["oversized", "empty", "no message", "another protocol"],
)
def test_malformed_frame_ends_the_process(loaded, garbage):
    """After bytes that are no frame of ours nothing is trusted any more."""
    loaded.socket.sendall(garbage)
    rest, status = loaded.end()
    assert [message.code for message in rest] == ["malformed_frame"]
    assert status is worker.ExitStatus.FAULT


@pytest.mark.parametrize("early", [wire.Stop(), wire.Cancel("r"), wire.Add(ask("r"))])
def test_nothing_comes_before_the_configuration(raw, early):
    """The first message is Configure, whatever else was well-formed."""
    raw.send(early)
    rest, status = raw.end()
    assert [message.code for message in rest] == ["unexpected_message"]
    assert status is worker.ExitStatus.FAULT


def test_second_configuration_ends_the_process(loaded):
    """A process serves one configuration in its life."""
    loaded.send(wire.Configure(loaded.config))
    rest, _ = loaded.end()
    assert [message.code for message in rest] == ["unexpected_message"]


def test_stop_ends_the_process_without_words(loaded):
    """An ordered end is no fault."""
    loaded.send(wire.Stop())
    assert loaded.end() == ([], worker.ExitStatus.STOPPED)


def test_closed_socket_ends_the_process(loaded):
    """Where the system tells a child nothing of its parent's death, the socket does."""
    loaded.send(wire.Add(ask("r", max_tokens=10**9)))
    assert isinstance(loaded.receive(), wire.Started)
    loaded.close()
    assert loaded.status is worker.ExitStatus.STOPPED


def test_started_is_said_before_the_step(loaded):
    """A request is announced once and before the step that first computes it, again when its id comes again."""
    for _ in range(2):
        loaded.send(wire.Add(ask("r", max_tokens=3)))
        kinds = [type(loaded.receive()) for _ in range(4)]
        assert kinds == [wire.Started, wire.Step, wire.Step, wire.Step]


def test_one_step_is_one_frame(loaded):
    """The events of all requests of a step travel together."""
    loaded.send(*(wire.Add(ask(f"r{n}", n, max_tokens=2)) for n in range(5)))
    seen = {}
    while len(seen) < 10:
        message = loaded.receive()
        if isinstance(message, wire.Step):
            for event in message.events:
                seen[event.request_id, event.token_ids] = True
            assert len({event.request_id for event in message.events}) == len(message.events)
    assert len(seen) == 10


def test_oversized_step_travels_in_parts(raw):
    """Logprobs of a whole vocabulary for many requests exceed a frame: all events arrive, and the process lives."""
    link = ServiceLink(raw._theirs)
    top = tuple((token_id, -1.0) for token_id in range(100_000))
    events = tuple(StepEvent(f"r{n}", (n,), (TokenLogprobs(n, -1.0, 1, top),)) for n in range(13))
    core_stats = CoreStats(0, 0, 1, 1, 0)
    sending = threading.Thread(target=worker.send_step, args=(link, events, core_stats))
    sending.start()
    arrived = ()
    while len(arrived) < len(events):
        arrived += raw.receive().events
    sending.join(30)
    assert arrived == events


def test_late_cancel_is_no_error(loaded):
    """A cancel that crossed the last event on its way changes nothing."""
    loaded.send(wire.Cancel("never seen"), wire.Add(ask("r", max_tokens=1)))
    assert [type(loaded.receive()) for _ in range(2)] == [wire.Started, wire.Step]


def test_load_failure_carries_file_reason_and_hint(raw, tmp_path):
    """What the loader says crosses the wire whole."""
    (tmp_path / "bad.safetensors").touch()
    raw.send(wire.Configure(raw.config))
    (failure,), status = raw.end()
    assert failure.file == "bad.safetensors"
    assert "SHA-256" in failure.reason
    assert "install" in failure.hint
    assert status is worker.ExitStatus.LOAD_FAILED


def test_bug_while_loading_is_a_fault_without_text(tmp_path, monkeypatch, capfd):
    """An unforeseen exception of the loader names its class and place."""

    def explode(_config, _before_forward):
        raise MemoryError(scripted_worker.SECRET)

    monkeypatch.setattr(scripted_worker, "build_core", explode)
    raw = RawService(tmp_path)
    raw.send(wire.Configure(raw.config))
    (fault,), status = raw.end()
    raw.close()
    assert (fault.code, fault.exception, status) == ("load_broken", "MemoryError", worker.ExitStatus.FAULT)
    assert fault.where.startswith("engine/test_worker_loop.py:")
    assert scripted_worker.SECRET not in capfd.readouterr().err
