"""A stream of server-sent events that watches its reader: gone, too slow, or served to the end.

Invariants: whatever ends the stream early, `abandon` is called once with the reason, so that the engine stops and the
record is written; one event is made only after the one before it was taken, so a slow reader costs no memory here;
nothing is sent after an error event.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TypeAlias

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from appliance.api.error_bodies import error_body
from appliance.errors import ApplianceError

DONE = b"data: [DONE]\n\n"
CLIENT_CLOSED = "client_closed"
CLIENT_STALLED = "client_stalled"
ABORT_EXTENSION = "cloister.connection"
"""Put into the scope by `appliance.http_protocol`; absent under any other server."""
SERVER_BROKE = "connection_task_ended"

Events: TypeAlias = AsyncGenerator[bytes, None]
Abandon: TypeAlias = Callable[[str], None]


def event(value: Mapping[str, object]) -> bytes:
    """Give one event with a JSON value."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def comment(text: str) -> bytes:
    """Give one line that clients skip."""
    assert text.isprintable(), f"{text!r} would end the comment"
    return f": {text}\n\n".encode()


async def ending_with_error(events: Events) -> Events:
    """Pass events on; an error of ours becomes the last event, and `[DONE]` never comes."""
    try:
        async for one in events:
            yield one
    except ApplianceError as error:
        yield event(error_body(error))


async def disconnected(receive: Receive) -> None:
    """Return once the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def abort_connection(scope: Scope) -> None:
    """Drop the connection with whatever waits in it: closing in order would wait for a reader who does not read."""
    abort = scope.get("extensions", {}).get(ABORT_EXTENSION)
    if abort is not None:
        abort["abort"]()


class _Stalled(Exception):
    """The client did not take an event in time."""


class EventStream(Response):
    """The ASGI response; used once."""

    media_type = "text/event-stream"

    def __init__(
        self, events: Events, abandon: Abandon, *, headers: Mapping[str, str], write_deadline_s: float
    ) -> None:
        self._events = events
        self._abandon = abandon
        self._write_deadline_s = write_deadline_s
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no", **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write until the end, or until the reader is no longer there to read."""
        writing = asyncio.create_task(self._write(send), name="sse write")
        leaving = asyncio.create_task(disconnected(receive), name="sse disconnect")
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
            else:
                self._abandon(CLIENT_CLOSED)
        except _Stalled:
            self._abandon(CLIENT_STALLED)
            abort_connection(scope)
        except OSError:
            self._abandon(CLIENT_CLOSED)
        except BaseException:
            self._abandon(SERVER_BROKE)
            raise
        finally:
            writing.cancel()
            leaving.cancel()
            await asyncio.gather(writing, leaving, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        await self._send(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(ending_with_error(self._events)) as events:
            async for one in events:
                await self._send(send, {"type": "http.response.body", "body": one, "more_body": True})
        await self._send(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, message: dict[str, object]) -> None:
        try:
            async with asyncio.timeout(self._write_deadline_s):
                await send(message)
        except TimeoutError:
            raise _Stalled from None
