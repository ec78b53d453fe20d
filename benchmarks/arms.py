"""The two arms: the whole appliance over HTTP, and the engine alone by its own client - same requests, same streams.

Times are taken on the client's side in both: from the call to the first token, and from token to token.  The HTTP
client writes one request to a socket, keeps what comes back as it came, and understands it after the run: a real client
sits on another machine, and this one must not take the cores that are being measured.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.load import LoadRequest
from engine.request import GenerationRequest, SamplingParams
from engine.service import EngineService

PIECE_BYTES = 2**16
READ_TIMEOUT_S = 600.0


@dataclass(slots=True)
class Transcript:
    """One connection as it was read, from the status line to its end."""

    started: float
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    """When, by `time.perf_counter`, and what."""

    def receipt(self) -> str:
        """Return the receipt header of an answer with status 200; anything else raises AssertionError."""
        text = b"".join(piece for _, piece in self.pieces).decode()
        head, _, body = text.partition("\r\n\r\n")
        status, *fields = head.split("\r\n")
        if status.split()[1] != "200":
            raise AssertionError(f"{status}: {body}")
        return dict(line.lower().split(": ", 1) for line in fields)["x-cloister-receipt"]

    def tokens(self) -> Iterator[tuple[float, int]]:
        """Yield when tokens came and how many; an error event raises AssertionError."""
        rest = b""
        for when, piece in self.pieces:
            *lines, rest = (rest + piece).split(b"\n")
            count = sum(_is_token(line) for line in lines)
            if count:
                yield when, count


@dataclass(slots=True)
class Times:
    """What one run measured.  Seconds."""

    ttft_s: list[float] = field(default_factory=list)
    itl_s: list[float] = field(default_factory=list)
    num_output: int = 0
    wall_s: float = 0.0
    receipts: list[str] = field(default_factory=list)
    transcripts: list[Transcript] = field(default_factory=list)

    @property
    def tokens_per_s(self) -> float:
        """Output tokens over the whole run."""
        return self.num_output / self.wall_s


Ask = Callable[[int, LoadRequest, Times], Awaitable[None]]


async def run_streams(requests: tuple[LoadRequest, ...], num_streams: int, ask: Ask) -> Times:
    """Keep `num_streams` requests under way until all are answered."""
    times = Times()
    waiting = iter(enumerate(requests))

    async def stream() -> None:
        for number, request in waiting:
            await ask(number, request, times)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as streams:
        for _ in range(num_streams):
            streams.create_task(stream())
    times.wall_s = time.perf_counter() - started
    for transcript in times.transcripts:
        times.receipts.append(transcript.receipt())
        clock = _Clock(times, transcript.started)
        for when, count in transcript.tokens():
            clock.note(when, count)
    wanted = sum(request.num_output for request in requests)
    if times.num_output != wanted:
        raise AssertionError(f"{times.num_output} tokens came back, {wanted} were asked for")
    return times


class _Clock:
    """Turns the tokens of one request into times."""

    def __init__(self, times: Times, started: float) -> None:
        self._times = times
        self._started = started
        self._last: float | None = None

    def note(self, when: float, count: int) -> None:
        """Take the next tokens."""
        if self._last is None:
            self._times.ttft_s.append(when - self._started)
            self._times.itl_s.extend([0.0] * (count - 1))  # they came together
        else:
            self._times.itl_s.extend([(when - self._last) / count] * count)
        self._last = when
        self._times.num_output += count


class HttpArm:
    """The appliance, as a client sees it."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\nConnection: close\r\nContent-Length: "
        )

    async def ask(self, _number: int, request: LoadRequest, times: Times) -> None:
        """Stream one completion; the model writes letters only, so each token is one chunk, and the sum is checked."""
        body = json.dumps(
            {
                "model": "starter",
                "prompt": list(request.token_ids),
                "max_tokens": request.num_output,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
            }
        )
        transcript = Transcript(time.perf_counter())
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(f"{self._head}{len(body)}\r\n\r\n{body}".encode())
        while piece := await asyncio.wait_for(reader.read(PIECE_BYTES), READ_TIMEOUT_S):
            transcript.pieces.append((time.perf_counter(), piece))
        writer.close()
        times.transcripts.append(transcript)


def _is_token(line: bytes) -> bool:
    if not line.startswith(b"data: {"):
        return False
    chunk = json.loads(line.removeprefix(b"data: "))
    if "error" in chunk:
        raise AssertionError(chunk["error"])
    return bool(chunk["choices"] and chunk["choices"][0]["text"])


class EngineArm:
    """The engine alone, by the client that the appliance uses."""

    def __init__(self, engine: EngineService) -> None:
        self._engine = engine
        self._num_asked = 0

    async def ask(self, _number: int, request: LoadRequest, times: Times) -> None:
        """Generate one answer."""
        self._num_asked += 1
        params = SamplingParams(max_tokens=request.num_output, temperature=0.0, ignore_eos=True)
        clock = _Clock(times, time.perf_counter())
        async for event in self._engine.submit(
            GenerationRequest(f"bench-{self._num_asked}", request.token_ids, params)
        ):
            if event.error is not None:
                raise AssertionError(event.error)
            if event.token_ids:
                clock.note(time.perf_counter(), len(event.token_ids))
