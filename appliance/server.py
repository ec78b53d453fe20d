"""The life of the serving process: bind, build, listen, prove a first token, wait, stop in order.

Order of a stop, whatever asks for it: shut the door; let running requests finish, or cancel them at the deadline, each
with its record; close the listener; stop the engine; append `appliance:stopped` and sign the last checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Awaitable, Callable, Generator

import structlog
import uvicorn

from appliance.admission import Obstacle
from appliance.app import Appliance, build_app
from appliance.http_protocol import GuardedH11Protocol
from appliance.settings import Settings

LOG = structlog.get_logger("cloister.server")
STOPPING = Obstacle("stopping", "the appliance is being stopped; start it again")
KEEP_ALIVE_S = 30
BACKLOG = 512


class PortBusy(Exception):
    """Another process listens on the port."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"{host}:{port} is in use by another process; stop that one, or choose another port by CLOISTER_PORT"
        )


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the order of a stop is decided here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals alone."""
        yield


async def run(
    settings: Settings, on_ready: Callable[[Appliance], Awaitable[None]], *, unsafe_development_trust: bool
) -> None:
    """Serve until a signal; `on_ready` is called once the API answers, and its failure stops the appliance.

    Raises:
        PortBusy: before anything was opened.
    """
    listener = bind(settings)
    with contextlib.closing(listener):
        appliance = await build_app(settings, unsafe_development_trust=unsafe_development_trust)
        server = _Server(_uvicorn_config(settings, appliance))
        try:
            await _serve_until_signal(server, listener, appliance, on_ready)
        finally:
            await appliance.close()


def bind(settings: Settings) -> socket.socket:
    """Take the port first: a busy one must not cost a model load."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as failure:
        listener.close()
        if failure.errno == errno.EADDRINUSE:
            raise PortBusy(settings.host, settings.port) from None
        raise
    listener.setblocking(False)
    return listener


async def _serve_until_signal(
    server: _Server,
    listener: socket.socket,
    appliance: Appliance,
    on_ready: Callable[[Appliance], Awaitable[None]],
) -> None:
    stop = asyncio.Event()
    hurry = asyncio.Event()
    _on_signals(lambda: hurry.set() if stop.is_set() else stop.set())
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http server")
    ready = asyncio.create_task(_until(on_ready(appliance), stop), name="first token")
    try:
        await ready
        await _first_of(stop.wait(), serving)
    finally:
        LOG.info("stopping", running=appliance.walk.num_running)
        appliance.door.shut(STOPPING)
        await _first_of(appliance.walk.drain(appliance.settings.drain_deadline_s), hurry.wait())
        await appliance.walk.drain(0)
        server.should_exit = True
        await serving


async def _until(work: Awaitable[None], stop: asyncio.Event) -> None:
    """Do the work, or leave it when the stop comes first."""
    task = asyncio.ensure_future(work)
    await _first_of(task, stop.wait())
    if task.done():
        task.result()


async def _first_of(*waits: Awaitable[object]) -> None:
    """Wait for the first of several, and cancel what is left except tasks that others own."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task, wait in zip(tasks, waits, strict=True):
        if task is not wait and not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _on_signals(act: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, act)


def _uvicorn_config(settings: Settings, appliance: Appliance) -> uvicorn.Config:
    return uvicorn.Config(
        app=appliance.asgi,
        http=GuardedH11Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,  # the source is the socket's peer, whatever a header says
        server_header=False,
        h11_max_incomplete_event_size=settings.max_header_bytes,
        timeout_keep_alive=KEEP_ALIVE_S,
        backlog=BACKLOG,
    )
