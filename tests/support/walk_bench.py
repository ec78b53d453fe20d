"""A walk with a real log, real policy and a scripted engine that refuses any prompt whose admission is not durable.

`FaultySink` stands between walk and writer and makes the k-th append fail, in both ways a commit can fail: nothing was
persisted, or it was and nobody was told.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fake_walk import served_model

from appliance.admission import AdmissionDoor
from appliance.audit_trail import PAIRING, REPLAY_PAIRING, AuditTrail, Clock
from appliance.gate import Asking, PolicyGate
from appliance.generation import Generation
from appliance.identity.principal import Principal
from appliance.inference import InferenceRequest, PlainText, Sampling
from appliance.metrics import ServingMetrics
from appliance.recorder import RequestRecorder
from appliance.replay.replayer import Replayer
from appliance.serve import Walk
from audit.checkpoint import LogSigner
from audit.errors import AuditHalted, AuditQueueFull
from audit.event import Event, Floor, Receipt, SealedContent
from audit.reader import AuditReader, EntryFilter
from audit.report import Report
from audit.store import create_log
from audit.subject_keys.keyring import SubjectKeyring
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig
from engine.errors import QueueFull
from engine.health import EngineHealth
from engine.request import NO_USAGE, GenerationRequest, SequenceUsage, StepEvent
from policies.bundle import load_bundle, read_source_bundle
from policies.cedar import PolicyEngine

DEVELOPER = Principal("dana", "User", "plant-1", ("developer",), 2, "key1")
AUDITOR = Principal("avery", "User", "plant-1", ("auditor",), 2, "key2")
SIGNER = LogSigner.from_seed("test.log/walk", bytes(range(32)))
Fault = Literal["not_persisted", "persisted"]
REPLAY_DEADLINE_S = 60.0


@dataclass
class ScriptedStream:
    """Tokens of one request, one event each; it ends by itself, or as cancelled when told to."""

    request: GenerationRequest
    token_ids: list[int]
    gate: asyncio.Event | None
    """Waited for before token `gate_at`, so that a test can act at any place of an answer."""
    error: str | None = None
    """Ends the stream before token `error_at`."""
    gate_at: int = 1
    error_at: int = 1
    num_cached_tokens: int = 0
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    usage: SequenceUsage = NO_USAGE

    def cancel(self) -> None:
        """End it at the next event."""
        self.cancelled.set()

    def claim(self) -> SequenceUsage:
        """Take account of the tokens that were read: this engine is never ahead of its reader."""
        return self.usage

    async def __aiter__(self) -> AsyncIterator[StepEvent]:
        """Give one event per token."""
        name = self.request.request_id
        for position, token_id in enumerate(self.token_ids[: self.request.params.max_tokens]):
            await self._wait_at(position)
            if self.cancelled.is_set():
                yield StepEvent(name, finish="cancelled")
                return
            if position == self.error_at and self.error is not None:
                yield StepEvent(name, finish="error", error=self.error)
                return
            cached = self.num_cached_tokens
            first = {"num_cached_tokens": cached, "queue_time_s": 0.0, "prefill_time_s": 0.25} if position == 0 else {}
            event = StepEvent(name, token_ids=(token_id,), **first)
            self.usage = self.usage.plus(SequenceUsage.of_event(event, len(self.request.token_ids)))
            yield event
        await self._wait_at(len(self.token_ids))
        yield StepEvent(name, finish="cancelled" if self.cancelled.is_set() else "length")

    async def _wait_at(self, position: int) -> None:
        if self.gate is None or position != self.gate_at:
            return
        waits = [asyncio.ensure_future(self.gate.wait()), asyncio.ensure_future(self.cancelled.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


class ScriptedEngine:
    """Enforces the first sentence of the house: no durable admission, no prompt."""

    def __init__(self, reader: AuditReader, token_ids: list[int]) -> None:
        self._reader = reader
        self.token_ids = token_ids
        self.num_cached_tokens = 0
        """Of every prompt, as its first event says."""
        self.gate: asyncio.Event | None = None
        self.gate_at = 1
        self.error: str | None = None
        self.error_at = 1
        self.full_at: int | None = None
        """The submission that finds the queue full."""
        self.is_stalled = False
        self.broken_at: int | None = None
        """The submission that meets a bug."""
        self.streams: list[ScriptedStream] = []
        self.submitted = asyncio.Event()
        """Set by every submission; a test that waits for the next one clears it."""

    def health(self) -> EngineHealth:
        """Give what the test set."""
        return EngineHealth(
            state="ready",
            is_healthy=not self.is_stalled,
            last_step_age_s=0.0,
            busy=False,
            pid=None,
            restarts=0,
            last_exit=None,
            num_running=0,
            num_waiting=0,
        )

    def submit(self, request: GenerationRequest) -> ScriptedStream:
        """Take a request whose admission can be read back from disk."""
        subject = request.request_id.rsplit("/", 1)[0]
        opened = [
            entry
            for entry in self._reader.entries(EntryFilter(subject=subject)).entries
            if entry.leaf.event.kind in (PAIRING.opening, REPLAY_PAIRING.opening)
        ]
        assert len(opened) == 1, f"the engine got {subject} with {len(opened)} durable records of its beginning"
        if self.full_at == len(self.streams):
            raise QueueFull(1)
        if self.broken_at == len(self.streams):
            raise LookupError("a bug")
        self.streams.append(
            ScriptedStream(
                request,
                self.token_ids,
                self.gate,
                self.error,
                self.gate_at,
                self.error_at,
                self.num_cached_tokens,
            )
        )
        self.submitted.set()
        return self.streams[-1]


class FaultySink:
    """Passes events to the writer until its turn comes."""

    def __init__(self, writer: AuditWriter, fail_at: int | None, fault: Fault) -> None:
        self._writer = writer
        self._fail_at = fail_at
        self._fault = fault
        self.num_appends = 0
        self.num_until_busy: int | None = None
        """Appends that work before one finds the queue of records full."""
        self.hold: asyncio.Event | None = None
        """Waited for before an append that works."""
        self.reached = asyncio.Event()
        """Set by the first append."""

    async def append(self, event: Event, contents: Sequence[SealedContent] = ()) -> Receipt:
        """Append, or fail as told; after a failure everything fails, as a halted writer does."""
        return await self._take_turn(lambda: self._writer.append(event, contents))

    async def prune(self, event: Event, floor: Floor) -> Receipt:
        """Prune, or fail as told."""
        return await self._take_turn(lambda: self._writer.prune(event, floor))

    async def _take_turn(self, write: Callable[[], Awaitable[Receipt]]) -> Receipt:
        self.num_appends += 1
        self.reached.set()
        if self.num_until_busy is not None:
            self.num_until_busy -= 1
            if self.num_until_busy < 0:
                self.num_until_busy = None
                raise AuditQueueFull(1)
        turn = self._fail_at is not None and self.num_appends - 1 - self._fail_at
        if self.hold is not None:
            await self.hold.wait()
        if turn is False or turn < 0:
            return await write()
        if turn == 0 and self._fault == "persisted":
            await write()
        raise AuditHalted("the disk failed")

    def fail_after(self, num_appends: int) -> None:
        """Let so many more appends work, and none after them."""
        self._fail_at = self.num_appends + num_appends


@functools.cache
def base_policy() -> PolicyEngine:
    """Give the policy of the tree, read once: it keeps no state between two questions."""
    return load_bundle(read_source_bundle())


@functools.cache
def empty_log() -> bytes:
    """Give the bytes of a log that was just made: every bench begins with the same, and making one takes a while."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.db"
        create_log(path, [SIGNER])
        return path.read_bytes()


class WalkBench:
    """One walk in a folder of its own."""

    def __init__(self, folder: Path, *, fail_at: int | None = None, fault: Fault = "not_persisted") -> None:
        self.path = folder / "audit.db"
        self.path.touch(0o600)
        self.path.write_bytes(empty_log())
        self.writer = AuditWriter.open(WriterConfig(self.path, "node", "boot", min_free_bytes=0), [SIGNER])
        self.keyring = SubjectKeyring.create(folder / "subjects.db", bytes(32))
        self.reader = AuditReader(self.path, [SIGNER.verifier])
        self.sink = FaultySink(self.writer, fail_at, fault)
        self.trail = AuditTrail(self.sink, self.keyring, Clock(), trust="development")
        self.door = AdmissionDoor()
        model = served_model()
        one_by_one = [token_id for letter in "hello" for token_id in model.tokenizer.encode(letter)]
        self.engine = ScriptedEngine(self.reader, one_by_one)
        self.metrics = ServingMetrics("starter")
        self.recorder = RequestRecorder(self.trail, self.door, self.metrics)
        self.gate = PolicyGate(base_policy(), self.trail, self.metrics, development_trust=True)
        self.walk = Walk(
            model=model,
            door=self.door,
            gate=self.gate,
            recorder=self.recorder,
            generation=Generation(self.engine, self.trail.clock, self.metrics, bytes(32)),
            clock=self.trail.clock,
            draw_seed=lambda: 7,
        )
        self.replayer = Replayer(
            trail=self.trail,
            reader=self.reader,
            door=self.door,
            gate=self.gate,
            engine=self.engine,
            model=lambda: self.walk.model,
            deadline_s=REPLAY_DEADLINE_S,
        )

    def asking(self, request_id: str, principal: Principal = DEVELOPER) -> Asking:
        """Ask as somebody."""
        return Asking(principal, request_id, "/v1/completions", "127.0.0.1")

    def kinds(self, subject: str) -> list[str]:
        """Kinds recorded for a subject, as they are on disk."""
        page = self.reader.entries(EntryFilter(subject=subject))
        return [entry.leaf.event.kind for entry in page.entries]

    def verify(self) -> Report:
        """Verify the log from its bytes."""
        return verify_log(self.path, [SIGNER.verifier], PAIRING)

    def close(self) -> None:
        """Let everything go."""
        self.reader.close()
        self.keyring.close()
        self.writer.close()


def completion(prompt: str = "Once", **changes) -> InferenceRequest:
    """Give a small request."""
    sampling = {"max_tokens": 5, **changes.pop("sampling", {})}
    return InferenceRequest(
        "/v1/completions", "starter", (PlainText(prompt),), sampling=Sampling(**sampling), **changes
    )


async def collect(running) -> tuple[list, Exception | None]:
    """Read an answer to its end: what was given, and the error that ended it, if one did."""
    given: list = []
    try:
        async for answer in running.answers():
            given.append(answer)  # noqa: PERF401 - what came before an error counts
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return given, error
    return given, None


BenchMaker = Callable[..., WalkBench]
