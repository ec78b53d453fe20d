"""From an admitted request to an HTTP answer, streamed or whole, for every dialect the same way.

A dialect is an `AnswerShape`: it turns the walk's answers into its own JSON values.  It never sees a socket, and
nothing here knows a field of any dialect.

Invariants: what says "finished" is made from `Finished` alone, which the walk gives only after the terminal record is
durable; a client that goes away is reported to the walk while the answer is still being made, streamed or not; a large
body is made in a thread, since everybody's tokens go through this event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from appliance.api.call import Call
from appliance.api.error_bodies import error_response
from appliance.api.json_pieces import ENCODER, json_pieces
from appliance.api.sse import CLIENT_CLOSED, DONE, EventStream, comment, disconnected, event
from appliance.errors import ApplianceError, GenerationFailed
from appliance.gate import Asking
from appliance.inference import Admission, Answer, ChoiceFinish, Finished, InferenceRequest, TextDelta
from appliance.receipt_text import RECEIPT_HEADER, shown_receipt

TERMINAL_RECEIPT_HEADER = "x-cloister-terminal-receipt"
JsonObject: TypeAlias = dict[str, Any]
SMALL_BODY_LEN = 65_536
"""Characters that are put together in a millisecond or so; a thread would cost more than it spares."""
LOGPROB_LEN = 64
"""Characters of one log-probability in a body, about."""


class AnswerShape(Protocol):
    """One dialect's bodies for one admitted request."""

    def opening(self) -> Iterable[JsonObject]:
        """Give the chunks that stand before any text."""
        ...

    def delta(self, delta: TextDelta) -> Iterable[JsonObject]:
        """Give the chunks for new text."""
        ...

    def closing(self, finished: Finished) -> Iterable[JsonObject]:
        """Give the chunks that say how it ended."""
        ...

    def whole(self, deltas: Sequence[TextDelta], finished: Finished) -> JsonObject:
        """Give the one body of an answer that is not streamed."""
        ...


ShapeOf: TypeAlias = Callable[[Admission], AnswerShape]


class RunningRequest(Protocol):
    """What is needed of `appliance.running.Running`."""

    @property
    def admission(self) -> Admission:
        """The durable admission."""
        ...

    def answers(self) -> AsyncIterator[Answer]:
        """Deltas, then one `Finished`; or an `ApplianceError` instead of it."""
        ...

    def abandon(self, reason: str) -> None:
        """Say that nobody waits any more."""
        ...


async def answer(call: Call, request: InferenceRequest, shape_of: ShapeOf) -> Response:
    """Admit the request and answer it.

    Raises:
        ApplianceError: it was not admitted.
    """
    asking = Asking(call.principal, call.request_id, request.route, call.source, call.label)
    running = await call.appliance.walk.admit(asking, request)
    call.receipts.append(running.admission.receipt)  # from here on the walk records how it ends, also if this breaks
    shape = shape_of(running.admission)
    if request.stream:
        return EventStream(
            _events(running, shape),
            running.abandon,
            headers=_receipt_headers(running),
            write_deadline_s=call.appliance.settings.write_deadline_s,
        )
    return await _whole(call.request, running, shape)


async def _whole(request: Request, running: RunningRequest, shape: AnswerShape) -> Response:
    headers = _receipt_headers(running)
    deltas: list[TextDelta] = []
    body_len = sum(map(len, running.admission.prompt_texts))
    try:
        async with watched(request, running.abandon), aclosing(_answers(running)) as answers:
            async for one in answers:
                if isinstance(one, TextDelta):
                    deltas.append(one)
                    body_len += _shown_len(one)
                    continue
                headers[TERMINAL_RECEIPT_HEADER] = shown_receipt(one.receipt)
                return _json(await _body(shape, deltas, one, body_len), headers)
    except ApplianceError as error:
        return error_response(error, headers)
    raise AssertionError(f"request {running.admission.request_id} ended without saying so")


async def _events(running: RunningRequest, shape: AnswerShape) -> AsyncGenerator[bytes, None]:
    for chunk in shape.opening():
        yield event(chunk)
    async with aclosing(_answers(running)) as answers:
        async for one in answers:
            if isinstance(one, TextDelta):
                for chunk in shape.delta(one):
                    yield event(chunk)
                continue
            for chunk in shape.closing(one):
                yield event(chunk)
            yield comment(f"{TERMINAL_RECEIPT_HEADER} {shown_receipt(one.receipt)}")
            yield DONE


async def _answers(running: RunningRequest) -> AsyncGenerator[Answer, None]:
    """Pass answers on; an end that no dialect has a word for is a failure, not an answer."""
    async for one in running.answers():
        if isinstance(one, Finished):
            for choice in one.choices:
                require_spoken(choice)
        yield one


def require_spoken(choice: ChoiceFinish) -> None:
    """Raise unless the choice ended in one of the two ways that clients know."""
    if choice.reason not in ("stop", "length"):
        raise GenerationFailed("the answer was given up before its end", code=f"choice_{choice.reason}")


@asynccontextmanager
async def watched(request: Request, abandon: Callable[[str], None]) -> AsyncIterator[None]:
    """Tell whoever works when the client goes while its answer is being made, or when making it breaks."""

    async def watch() -> None:
        await disconnected(request.receive)
        abandon(CLIENT_CLOSED)

    watching = asyncio.create_task(watch(), name="client watch")
    try:
        yield
    except ApplianceError:
        raise  # the work has ended by itself
    except BaseException:
        abandon("answer_task_ended")
        raise
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _receipt_headers(running: RunningRequest) -> dict[str, str]:
    return {RECEIPT_HEADER: shown_receipt(running.admission.receipt)}


def _shown_len(delta: TextDelta) -> int:
    return len(delta.text) + LOGPROB_LEN * sum(1 + len(token.top) for token in delta.tokens)


async def _body(shape: AnswerShape, deltas: Sequence[TextDelta], finished: Finished, body_len: int) -> bytes:
    if body_len <= SMALL_BODY_LEN:
        return ENCODER.encode(shape.whole(deltas, finished)).encode()
    return await asyncio.to_thread(lambda: "".join(json_pieces(shape.whole(deltas, finished))).encode())


def _json(content: bytes, headers: dict[str, str]) -> Response:
    return Response(content, 200, {"cache-control": "no-store", **headers}, "application/json")
