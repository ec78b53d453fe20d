"""A real HTTP server around our endpoints, the released `openai` client for it, and a plain one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
import uvicorn
from fake_walk import FakeAppliance, FakePerimeter
from openai import AsyncOpenAI
from perimeter_bench import PerimeterBench

PerimeterMaker = Callable[..., PerimeterBench]


@pytest.fixture
def appliance():
    """What the endpoints see."""
    return FakeAppliance()


@pytest.fixture
def walk(appliance):
    """The walk that the endpoints use."""
    return appliance.walk


@pytest_asyncio.fixture
async def base_url(appliance):
    """Address of a server on loopback, on a port that the system chose."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    server = uvicorn.Server(
        uvicorn.Config(FakePerimeter(appliance), lifespan="off", log_config=None, ws="none", http="h11")
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = server.force_exit = True  # a test that failed may leave an answer open
    await serving
    listener.close()


@pytest_asyncio.fixture
async def client(base_url):
    """The released client; it does not retry, so that every answer is seen."""
    async with AsyncOpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest_asyncio.fixture
async def http(base_url):
    """A plain client."""
    async with httpx.AsyncClient(base_url=base_url, trust_env=False) as client:
        yield client


@pytest.fixture
def make_perimeter(tmp_path: Path) -> Iterator[PerimeterMaker]:
    """Make real perimeters on real logs that are closed after the test."""
    made: list[PerimeterBench] = []

    def make(**changes) -> PerimeterBench:
        folder = tmp_path / f"perimeter-{len(made)}"
        folder.mkdir()
        made.append(PerimeterBench(folder, **changes))
        return made[-1]

    yield make
    for bench in made:
        bench.close()
