"""The two arms: the whole appliance over HTTP, and the engine alone by its own client - same requests, same streams.

Times are taken on the client's side in both: from the call to the first token, and from token to token.  What an HTTP
client reads is kept as it came and understood after the run: parsing would take the cores that are being measured.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import httpx

from benchmarks.load import LoadRequest
from engine.request import GenerationRequest, SamplingParams
from engine.service import EngineService

TIMEOUT = httpx.Timeout(30.0, read=600.0)


@dataclass(slots=True)
class Transcript:
    """One stream as it was read."""

    started: float
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    """When, by `time.perf_counter`, and what."""

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
        else:
            self._times.itl_s.extend([(when - self._last) / count] * count)
        self._last = when
        self._times.num_output += count


class HttpArm:
    """The appliance, as a client sees it."""

    def __init__(self, url: str, key: str) -> None:
        limits = httpx.Limits(max_connections=256)
        headers = {"authorization": f"Bearer {key}"}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT, limits=limits, trust_env=False)

    async def ask(self, _number: int, request: LoadRequest, times: Times) -> None:
        """Stream one completion; the model writes letters only, so each token is one chunk, and the sum is checked."""
        body = {
            "model": "starter",
            "prompt": list(request.token_ids),
            "max_tokens": request.num_output,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        transcript = Transcript(time.perf_counter())
        async with self._http.stream("POST", "/v1/completions", json=body) as response:
            if response.is_error:
                raise AssertionError(f"{response.status_code}: {(await response.aread()).decode()}")
            times.receipts.append(response.headers["x-cloister-receipt"])
            async for piece in response.aiter_raw():
                transcript.pieces.append((time.perf_counter(), piece))
        times.transcripts.append(transcript)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


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
