import asyncio
import json

import pytest

from appliance.api.sse import EventStream, comment, event
from appliance.errors import GenerationFailed


class Connection:
    """The server's side of one connection, as ASGI has it."""

    def __init__(self):
        self.sent = []
        self.gone = asyncio.Event()
        self.broken = False
        self.room = asyncio.Semaphore(1_000_000)
        """How many messages the reader still takes."""
        self.offered = asyncio.Semaphore(0)
        """One more for every message that was offered."""

    async def receive(self):
        """Wait until the reader goes."""
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        """Take a message, once there is room."""
        if self.broken:
            raise OSError("connection reset")
        self.offered.release()
        await self.room.acquire()
        self.sent.append(message)

    @property
    def body(self):
        """All that the reader has."""
        return b"".join(message.get("body", b"") for message in self.sent)


async def _serve(events, connection, *, deadline_s=60.0):
    reasons = []
    stream = EventStream(events, reasons.append, headers={"x-a": "b"}, write_deadline_s=deadline_s)
    await stream({"type": "http"}, connection.receive, connection.send)
    return reasons


async def _three():
    for number in range(3):
        yield event({"n": number})


async def test_events_are_sent_one_by_one_and_the_answer_is_closed():
    """Head, one message per event, a closing message; nobody is told that nobody waits."""
    connection = Connection()
    assert await _serve(_three(), connection) == []
    head, *events, last = connection.sent
    headers = dict(head["headers"])
    assert (head["status"], headers[b"x-a"]) == (200, b"b")
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert b"content-length" not in headers
    assert [one["body"] for one in events] == [b'data: {"n":%d}\n\n' % number for number in range(3)]
    assert (last["body"], last["more_body"]) == (b"", False)


async def test_a_reader_that_leaves_abandons_the_answer():
    """While the next event is awaited the connection closes: abandoned once, and the events are closed."""
    connection, closed = Connection(), asyncio.Event()

    async def waiting():
        try:
            yield event({})
            connection.gone.set()
            await asyncio.get_running_loop().create_future()
        finally:
            closed.set()

    assert await _serve(waiting(), connection) == ["client_closed"]
    assert closed.is_set()
    assert connection.sent[-1]["more_body"] is True


async def test_a_reader_that_does_not_read_is_left():
    """A write that does not finish in time abandons the answer as stalled."""
    connection = Connection()

    async def then_stall():
        yield event({"n": 0})
        connection.room = asyncio.Semaphore(0)
        yield event({"n": 1})

    assert await _serve(then_stall(), connection, deadline_s=0.01) == ["client_stalled"]
    assert connection.body == event({"n": 0})


async def test_a_slow_answer_is_not_a_slow_reader():
    """The deadline is for writes alone: with none left at all, the model may still think as long as it likes."""
    connection = Connection()

    async def thinking():
        for _ in range(10):
            await asyncio.sleep(0)  # a turn of the loop, in which a deadline that ran would strike
        yield event({})

    assert await _serve(thinking(), connection, deadline_s=0) == []
    assert connection.body == event({})


async def test_a_broken_connection_abandons_the_answer():
    """An error of the socket is a reader that left."""
    connection = Connection()

    async def then_break():
        yield event({})
        connection.broken = True
        yield event({})

    assert await _serve(then_break(), connection) == ["client_closed"]


async def test_the_next_event_is_made_only_when_the_last_was_taken():
    """A reader that does not read costs no memory: the events wait where they are made."""
    connection, made = Connection(), []
    connection.room = asyncio.Semaphore(0)

    async def counting():
        for number in range(5):
            made.append(number)
            yield event({"n": number})

    serving = asyncio.create_task(_serve(counting(), connection))
    for num_taken in range(7):  # the head, five events, the end
        await connection.offered.acquire()
        assert len(made) == min(num_taken, 5)
        connection.room.release()
    assert await serving == []


async def test_an_error_of_ours_is_the_last_event():
    """The client learns why; nothing follows, and the answer is closed in order."""
    connection = Connection()

    async def failing():
        yield event({"n": 0})
        raise GenerationFailed("the engine died", code="engine_died")

    assert await _serve(failing(), connection) == []
    last = connection.body.split(b"\n\n")[-2]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_died"
    assert connection.sent[-1]["more_body"] is False


async def test_an_error_that_is_not_ours_abandons_and_is_not_swallowed():
    """A fault of the code ends the request and reaches the server's log, not the client."""
    connection = Connection()

    async def broken():
        yield event({"n": 0})
        raise ZeroDivisionError("secret text")

    reasons = []
    stream = EventStream(broken(), reasons.append, headers={}, write_deadline_s=60)
    with pytest.raises(ZeroDivisionError):
        await stream({"type": "http"}, connection.receive, connection.send)
    assert len(reasons) == 1
    assert b"secret" not in connection.body


async def test_a_server_that_stops_abandons_the_answer():
    """Cancelling the connection's task abandons the request before the task ends."""
    connection, started, reasons = Connection(), asyncio.Event(), []

    async def waiting():
        yield event({})
        started.set()
        await asyncio.get_running_loop().create_future()

    stream = EventStream(waiting(), reasons.append, headers={}, write_deadline_s=60)
    serving = asyncio.create_task(stream({"type": "http"}, connection.receive, connection.send))
    await started.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert len(reasons) == 1


def test_a_comment_cannot_end_itself():
    """A newline in a comment would start an event of somebody's making."""
    assert comment("a b") == b": a b\n\n"
    with pytest.raises(AssertionError):
        comment("a\n\ndata: x")
