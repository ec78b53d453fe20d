"""The two arms: the whole appliance over HTTP, and the engine alone by its own client - same requests, same streams.

Times are taken on the client's side in both: from the call to the first token, and from token to token.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from benchmarks.load import LoadRequest
from engine.request import GenerationRequest, SamplingParams, StepEvent
from engine.service import EngineService

TIMEOUT = httpx.Timeout(30.0, read=600.0)


@dataclass(slots=True)
class Times:
    """What one run measured.  Seconds."""

    ttft_s: list[float] = field(default_factory=list)
    itl_s: list[float] = field(default_factory=list)
    num_output: int = 0
    wall_s: float = 0.0
    receipts: list[str] = field(default_factory=list)

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
    wanted = sum(request.num_output for request in requests)
    if times.num_output != wanted:
        raise AssertionError(f"{times.num_output} tokens came back, {wanted} were asked for")
    return times


async def _note(tokens: AsyncIterator[int], times: Times, started: float) -> None:
    last = None
    async for count in tokens:
        now = time.perf_counter()
        if last is None:
            times.ttft_s.append(now - started)
        else:
            times.itl_s.extend([(now - last) / count] * count)
        last = now
        times.num_output += count


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
        started = time.perf_counter()
        async with self._http.stream("POST", "/v1/completions", json=body) as response:
            if response.is_error:
                raise AssertionError(f"{response.status_code}: {(await response.aread()).decode()}")
            times.receipts.append(response.headers["x-cloister-receipt"])
            await _note(_http_tokens(response), times, started)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


async def _http_tokens(response: httpx.Response) -> AsyncIterator[int]:
    async for line in response.aiter_lines():
        if line.startswith("data: {"):
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                raise AssertionError(chunk["error"])
            if chunk["choices"] and chunk["choices"][0]["text"]:
                yield 1


class EngineArm:
    """The engine alone, by the client that the appliance uses."""

    def __init__(self, engine: EngineService) -> None:
        self._engine = engine
        self._num_asked = 0

    async def ask(self, _number: int, request: LoadRequest, times: Times) -> None:
        """Generate one answer."""
        self._num_asked += 1
        params = SamplingParams(max_tokens=request.num_output, temperature=0.0, ignore_eos=True)
        started = time.perf_counter()
        handle = self._engine.submit(GenerationRequest(f"bench-{self._num_asked}", request.token_ids, params))
        await _note(_engine_tokens(handle), times, started)


async def _engine_tokens(handle: AsyncIterator[StepEvent]) -> AsyncIterator[int]:
    async for event in handle:
        if event.error is not None:
            raise AssertionError(event.error)
        if event.token_ids:
            yield len(event.token_ids)
