"""The life of the serving process: bind, build, listen, prove a first token, wait, stop in order.

Order of a stop, whatever asks for it: shut the door; let running requests finish, or cancel them at the deadline, each
with its record; stop the engine; close the listener and the connections; append `appliance:stopped` and sign the last
checkpoint.  A second signal waits for nobody but the records.  A signal while the model is being loaded ends the start.
A log that halted on the way makes the end a failure: whoever watches the process must see that its end is unrecorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Generator
from typing import TypeVar

import structlog
import uvicorn

from appliance.admission import Obstacle
from appliance.api.routes import ROUTES
from appliance.api.routing import Perimeter, RouteTable
from appliance.app import Appliance, build_app
from appliance.http_protocol import guarded_protocol, most_connections
from appliance.settings import Settings
from audit.errors import AuditHalted

LOG = structlog.get_logger("cloister.server")
STOPPING = Obstacle("stopping", "the appliance is being stopped; start it again")
KEEP_ALIVE_S = 30
FLUSH_GRACE_S = 5.0
"""At a stop, readers may take what was written to them within this time."""
BACKLOG = 512
OPEN_FILES = 65_536
"""As many as can be of use; some systems have a hard limit of a thousand million."""
T = TypeVar("T")


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

    def abort_connections(self) -> None:
        """Drop every connection that is still open: its reader has had time to take what was written."""
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()


async def run(
    settings: Settings, on_ready: Callable[[Appliance], Awaitable[None]], *, unsafe_development_trust: bool
) -> None:
    """Serve until a signal; `on_ready` is called once the API answers, and its failure stops the appliance.

    Raises:
        PortBusy: before anything was opened.
        AuditHalted: the stop was in order, but the log had halted: neither `appliance:stopped` nor what came before it
            since the halt is recorded.
    """
    open_files = raise_open_files()
    stop = StopOrder()
    routes = RouteTable(ROUTES)
    _on_signals(stop.give)
    listener = bind(settings)
    with contextlib.closing(listener):
        appliance = await _unless(stop.given, build_app(settings, unsafe_development_trust=unsafe_development_trust))
        if appliance is None:
            LOG.info("stopped_while_starting")
            return
        try:
            server = _Server(_uvicorn_config(settings, appliance, routes, most_connections(open_files)))
            await _serve_until_ordered(server, listener, appliance, on_ready, stop)
        finally:
            await appliance.close()
        _require_recorded(appliance.log.writer.halt_reason)


class StopOrder:
    """Given once: stop.  Given again: do not wait for what still runs.  Owned by the event loop."""

    def __init__(self) -> None:
        self.given = asyncio.Event()
        self.in_haste = asyncio.Event()

    def give(self) -> None:
        """Take a signal."""
        (self.in_haste if self.given.is_set() else self.given).set()


def raise_open_files() -> int:
    """Raise the soft limit on open files to the hard one, as far as it is of use; give the limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return OPEN_FILES
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


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


async def _serve_until_ordered(
    server: _Server,
    listener: socket.socket,
    appliance: Appliance,
    on_ready: Callable[[Appliance], Awaitable[None]],
    stop: StopOrder,
) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http server")
    try:
        await _unless(stop.given, on_ready(appliance))
        await _unless(stop.given, asyncio.shield(serving))
    finally:
        await _stop(server, serving, appliance, stop)


async def _stop(server: _Server, serving: asyncio.Task[None], appliance: Appliance, stop: StopOrder) -> None:
    LOG.info("stopping", running=appliance.walk.num_running)
    appliance.door.shut(STOPPING)
    appliance.replayer.cut_short("appliance_stopping")
    await _unless(stop.in_haste, appliance.walk.drain(appliance.settings.drain_deadline_s))
    await appliance.walk.drain(0)
    await appliance.engine.stop(0)  # also gives a last event to what a stalled engine holds
    await appliance.walk.settle()
    await appliance.replayer.settle()
    server.should_exit = True
    await asyncio.wait({serving}, timeout=0 if stop.in_haste.is_set() else FLUSH_GRACE_S)
    server.abort_connections()
    await serving


async def _unless(order: asyncio.Event, work: Awaitable[T]) -> T | None:
    """Do the work, or cancel it when the order comes first; None then."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(order.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
    return None if working.cancelled() else working.result()


def _require_recorded(halt_reason: str | None) -> None:
    if halt_reason is not None:
        raise AuditHalted(f"the log had halted, so this stop is not recorded: {halt_reason}")


def _on_signals(act: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, act)


def _uvicorn_config(
    settings: Settings, appliance: Appliance, routes: RouteTable, max_connections: int
) -> uvicorn.Config:
    return uvicorn.Config(
        app=Perimeter(appliance, routes),
        http=guarded_protocol(settings.write_deadline_s, max_connections),
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
