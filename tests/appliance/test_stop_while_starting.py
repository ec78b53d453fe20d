"""A stop that is ordered while the model is still being loaded."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_appliance import free_port

from appliance import server
from appliance.settings import Settings

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def _own_signals() -> Iterator[None]:
    """Put this process's own answers to signals back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, answer in before.items():
        signal.signal(number, answer)


@pytest.mark.usefixtures("_own_signals")
@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_ends_a_start_that_is_still_loading(monkeypatch, tmp_path: Path, number: signal.Signals):
    """Loading is cancelled and tidied up, the port is free again, and nothing was announced."""
    loading, tidied = asyncio.Event(), asyncio.Event()

    async def build_app(_settings: Settings, *, unsafe_development_trust: bool):
        assert unsafe_development_trust
        loading.set()
        try:
            await asyncio.Event().wait()
        finally:
            tidied.set()

    async def announce(_appliance):
        raise AssertionError("nothing is ready")

    monkeypatch.setattr(server, "build_app", build_app)
    settings = Settings(port=free_port(), state_dir=tmp_path / "state")
    running = asyncio.create_task(server.run(settings, announce, unsafe_development_trust=True))
    await loading.wait()
    os.kill(os.getpid(), number)
    await running
    assert tidied.is_set()
    server.bind(settings).close()


@pytest.mark.usefixtures("_own_signals")
async def test_a_start_that_fails_says_why(monkeypatch, tmp_path: Path):
    """Waiting for a signal beside it hides no failure of the start."""

    async def build_app(_settings: Settings, *, unsafe_development_trust: bool):
        raise LookupError(unsafe_development_trust)

    monkeypatch.setattr(server, "build_app", build_app)
    settings = Settings(port=free_port(), state_dir=tmp_path / "state")
    with pytest.raises(LookupError):
        await server.run(settings, build_app, unsafe_development_trust=True)
