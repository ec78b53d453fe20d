"""One request's life at the service: order, cancellation, refusal, the bound of the queue, a slow reader."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from scripted_service import ask, read, scripted, tokens
from scripted_worker import REFUSED

from engine import wire
from engine.config import EngineConfig
from engine.errors import EngineStopped, QueueFull
from engine.request import SamplingParams, StepEvent
from engine.service import EngineService


async def test_events_come_in_order_and_end_once(tmp_path):
    """Many requests at once: each gets its own tokens, in order, and one end."""
    async with scripted(tmp_path, max_num_sequences=8) as engine:
        handles = [engine.service.submit(ask(f"r{index}", index * 1000, max_tokens=50)) for index in range(20)]
        answers = await asyncio.gather(*map(read, handles))
    assert [tokens(events) for events in answers] == [[n * 1000 + i for i in range(1, 51)] for n in range(20)]


async def test_cancelled_request_ends_within_one_step(tmp_path):
    """The step under way when the order comes is the last one that computes the request."""
    async with scripted(tmp_path, gated=True) as engine:
        handle = engine.service.submit(ask("r", max_tokens=1000))
        engine.permit(3)
        for _ in range(3):
            await anext(handle)
        handle.cancel()  # the fourth step waits for its permit
        engine.permit(1)
        rest = await read(handle)
        num_steps = engine.service.stats().counts.num_steps
    assert tokens(rest) in ([], [5])
    assert rest[-1].finish == "cancelled"
    assert num_steps in (4, 5)  # the fourth, and the one that only ends the request


async def test_waiting_request_can_be_cancelled(tmp_path):
    """A request that never entered a step ends as cancelled, and its neighbour does not notice."""
    async with scripted(tmp_path, gated=True, max_num_sequences=1) as engine:
        running, waiting = engine.service.submit(ask("running")), engine.service.submit(ask("waiting"))
        waiting.cancel()
        engine.permit(4)
        assert [event.finish for event in await read(waiting)] == ["cancelled"]
        assert tokens(await read(running)) == [2, 3, 4, 5]


async def test_cancel_after_the_end_does_nothing(tmp_path):
    """A late cancel neither adds a second end nor touches a later request of the same id."""
    async with scripted(tmp_path) as engine:
        first = engine.service.submit(ask("same"))
        await read(first)
        again = engine.service.submit(ask("same"))
        first.cancel()
        assert (await read(again))[-1].finish == "length"


async def test_queue_is_bounded(tmp_path):
    """Waiting requests are counted, running ones are not; a place that is freed can be taken."""
    async with scripted(tmp_path, gated=True, max_num_sequences=1, max_queue_len=2) as engine:
        running = engine.service.submit(ask("running"))
        engine.permit(1)
        await anext(running)
        waiting = engine.service.submit(ask("waiting"))
        engine.service.submit(ask("another"))
        with pytest.raises(QueueFull) as full:
            engine.service.submit(ask("refused"))
        waiting.cancel()
        engine.permit(2)  # the step under way and the one that ends it
        await read(waiting)
        engine.service.submit(ask("refused"))
        health = engine.service.health()
    assert full.value.num_waiting == 2
    assert (health.num_running, health.num_waiting) == (1, 2)


async def test_slow_consumer_delays_nobody(tmp_path):
    """A request that nobody reads runs on beside the others, and all of it is there when somebody does."""
    async with scripted(tmp_path) as engine:
        unread = engine.service.submit(ask("unread", max_tokens=3000))
        await read(engine.service.submit(ask("beside", max_tokens=3000)))
        await read(engine.service.submit(ask("after", max_tokens=10)))
        assert tokens(await read(unread)) == list(range(2, 3002))


async def test_refusal_goes_to_its_request_alone(tmp_path):
    """What the core cannot serve ends with the core's code; process and neighbours go on."""
    async with scripted(tmp_path) as engine:
        handles = [engine.service.submit(ask("refused", REFUSED)), engine.service.submit(ask("good"))]
        refused, good = [await read(handle) for handle in handles]
        assert engine.service.health().restarts == 0
    assert [(event.finish, event.error) for event in refused] == [("error", "prompt_too_long")]
    assert good[-1].finish == "length"


@pytest.mark.parametrize(
    ("field", "value"),
    [("top_k", "many"), ("seed", 2**64), ("temperature", object()), ("stop_token_ids", (1.5,)), ("max_tokens", None)],
)
async def test_request_of_wrong_types_fails_alone(tmp_path, field, value):
    """A value that the wire cannot carry never becomes a frame that would end the process for everyone."""
    async with scripted(tmp_path) as engine:
        wrong = dataclasses.replace(SamplingParams(max_tokens=4), **{field: value})
        events = await read(engine.service.submit(dataclasses.replace(ask("wrong"), params=wrong)))
        assert (await read(engine.service.submit(ask("good"))))[-1].finish == "length"
        assert engine.service.health().restarts == 0
    assert [(event.finish, event.error) for event in events] == [("error", "malformed_request")]


async def test_oversized_request_fails_alone(tmp_path):
    """A prompt above the frame's bound ends with a code; nothing of it is sent."""
    async with scripted(tmp_path) as engine:
        events = await read(engine.service.submit(ask("large", *[2**40] * (wire.MAX_FRAME_BYTES // 8))))
        assert (await read(engine.service.submit(ask("good"))))[-1].finish == "length"
    assert [(event.finish, event.error) for event in events] == [("error", "request_too_large")]


async def test_large_requests_pass_through_a_full_socket(tmp_path):
    """Requests far above the socket's buffer arrive whole and in order while the process computes."""
    async with scripted(tmp_path, gated=True, max_num_sequences=1) as engine:
        handles = [engine.service.submit(ask(f"r{n}", *[n] * 300_000, n)) for n in range(8)]
        engine.permit(100)
        assert [tokens(await read(handle))[0] for handle in handles] == list(range(1, 9))


async def test_live_id_is_not_taken_twice(tmp_path):
    """Two live requests of one id would mix their events."""
    async with scripted(tmp_path, gated=True) as engine:
        engine.service.submit(ask("same"))
        with pytest.raises(ValueError, match="live already"):
            engine.service.submit(ask("same"))


async def test_two_consumers_are_refused(tmp_path):
    """A handle is for one consumer; a second one hears so instead of stealing events."""
    async with scripted(tmp_path, gated=True) as engine:
        handle = engine.service.submit(ask("r"))
        first = asyncio.create_task(anext(handle))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="two consumers"):
            await anext(handle)
        engine.permit(1)
        assert (await first).token_ids == (2,)


async def test_cancelled_reader_loses_no_event(tmp_path):
    """A reader whose wait is cancelled finds the event at its next look."""
    async with scripted(tmp_path, gated=True) as engine:
        handle = engine.service.submit(ask("r"))
        waiting = asyncio.create_task(anext(handle))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        engine.permit(4)
        assert tokens(await read(handle)) == [2, 3, 4, 5]


async def test_nothing_is_taken_before_the_start(tmp_path):
    """A service that was not started says so."""
    with pytest.raises(EngineStopped):
        EngineService(EngineConfig(model_dir=str(tmp_path), file_digests=())).submit(ask("early"))


async def test_events_of_the_core_arrive_unchanged(tmp_path):
    """The values of the border travel as they are."""
    async with scripted(tmp_path) as engine:
        events = await read(engine.service.submit(ask("r", max_tokens=1)))
    assert events == [StepEvent("r", (2,), finish="length", num_cached_tokens=0, queue_time_s=0.0)]
