"""One HTTP call to an ASGI application, byte by byte: bodies that stall, readers that go away at a chosen place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any


class AsgiCall:
    """A client that a test drives; `on_answer` is called with every piece of a body before the client sees it."""

    def __init__(
        self,
        application: Any,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        query: str = "",
        on_answer: Callable[[AsgiCall, bytes], None] = lambda _call, _piece: None,
    ) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = b""
        self._application = application
        self._on_answer = on_answer
        self._sent = asyncio.Event()
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._gone = False
        self._stalls_at: bytes | None = None
        head = {"host": "127.0.0.1", **headers}
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in head.items()],
            "client": ("127.0.0.1", 40000),
            "server": ("127.0.0.1", 80),
        }
        self.task: asyncio.Task[None] | None = None

    def start(self) -> AsgiCall:
        """Begin; the body comes by `say` or `end`, or not at all."""
        self.task = asyncio.create_task(self._application(self._scope, self._receive, self._send))
        return self

    def say(self, piece: bytes, *, more: bool) -> AsgiCall:
        """Send a piece of the body."""
        self._incoming.put_nowait({"type": "http.request", "body": piece, "more_body": more})
        return self

    def leave(self) -> None:
        """Close the connection."""
        self._gone = True
        self._incoming.put_nowait({"type": "http.disconnect"})

    def stall_at(self, text: bytes) -> None:
        """Take no more from the first piece on that holds this text."""
        self._stalls_at = text

    async def until(self, seen: Callable[[AsgiCall], bool]) -> None:
        """Wait until what has come satisfies a condition."""
        while not seen(self):
            self._sent.clear()
            await self._sent.wait()

    async def end(self) -> AsgiCall:
        """Wait until the application has done with the call."""
        assert self.task is not None, "not started"
        await self.task
        return self

    async def _receive(self) -> dict[str, Any]:
        message = await self._incoming.get()
        if self._gone:
            self._incoming.put_nowait(message)  # a closed connection stays closed
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            piece = message.get("body", b"")
            if self._stalls_at is not None and self._stalls_at in piece:
                await asyncio.Event().wait()
            self._on_answer(self, piece)
            self.body += piece
        self._sent.set()
