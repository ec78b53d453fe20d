"""The bound on connections: who is dropped, who is answered, what the operator hears."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from appliance import server
from appliance.http_protocol import CONNECTIONS_AT_MOST, guarded_protocol, most_connections

REQUEST = b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"
MOST = 3
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _answer(_scope, _receive, send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@asynccontextmanager
async def _listening() -> AsyncIterator[int]:
    config = uvicorn.Config(_answer, ws="none", lifespan="off", log_config=None)
    protocol, state = guarded_protocol(60.0, MOST), ServerState()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: protocol(config, state, {}), "127.0.0.1", 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


async def _is_dropped(stream: Stream) -> bool:
    try:
        return await stream[0].read() == b""
    except ConnectionResetError:
        return True


async def _ask(stream: Stream) -> bytes:
    stream[1].write(REQUEST)
    return (await stream[0].read()).split(b"\r\n")[0]


async def test_connections_beyond_the_bound_are_dropped_and_the_others_answered():
    """Strangers hold every place; one more is closed without an answer, each that holds a place gets its answer."""
    async with _listening() as port:
        holding = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST)]
        with structlog.testing.capture_logs() as lines:
            late = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
            assert [await _is_dropped(stream) for stream in late] == [True] * 5
        answers = [await _ask(stream) for stream in holding]
        for _, writer in (*holding, *late):
            writer.close()
    assert answers == [b"HTTP/1.1 204 No Content"] * MOST
    assert [(line["event"], line["max_connections"]) for line in lines] == [("connections_full", MOST)]


async def test_a_place_that_is_given_back_is_taken_again_and_a_new_burst_is_told():
    """The bound counts what is open now; after room was made, being full is news again."""
    async with _listening() as port:
        with structlog.testing.capture_logs() as lines:
            for _ in range(2):
                streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST + 2)]
                assert [await _is_dropped(stream) for stream in streams[MOST:]] == [True] * 2
                answers = [await _ask(stream) for stream in streams[:MOST]]
                assert answers == [b"HTTP/1.1 204 No Content"] * MOST
                for _, writer in streams:
                    writer.close()
    assert [line["event"] for line in lines] == ["connections_full"] * 2


@given(st.integers(min_value=0, max_value=2**31))
def test_the_bound_is_far_below_the_limit_on_files(open_files: int):
    """Three quarters of the descriptors are never a connection's; one connection is always possible."""
    assert 1 <= most_connections(open_files) <= CONNECTIONS_AT_MOST
    assert most_connections(open_files) <= max(1, open_files // 4)


@pytest.mark.parametrize(
    ("soft", "hard", "granted"),
    [
        (1_024, 4_096, 4_096),
        (1_024, 1_024, 1_024),
        (1_024, 2**30, 65_536),
        (1_024, resource.RLIM_INFINITY, 65_536),
        (100_000, 200_000, 100_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 65_536),
    ],
)
def test_the_soft_limit_on_files_is_raised_never_lowered(monkeypatch, soft: int, hard: int, granted: int):
    """Up to the hard limit and to what is of use; the hard one stays as it is."""
    put: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: put.append(limits))
    assert server.raise_open_files() == granted
    is_raised = soft not in (resource.RLIM_INFINITY, granted)
    assert put == ([(granted, hard)] if is_raised else [])
