"""The engine process dies: who ends how, what is kept, and when it is given up."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import pytest
import uvloop
from scripted_service import AT_ONCE, ask, read, scripted, tokens
from scripted_worker import BREAKS_BOOKS, KILLS_IN_STEP, RAISES_IN_ADD, RAISES_IN_STEP, SECRET

from engine.errors import EngineStopped


async def test_kill_under_load_ends_the_started_and_serves_the_queued(tmp_path):
    """Kill -9: requests in a step end with engine_died, the others get all their tokens from the next process."""
    async with scripted(tmp_path, gated=True, max_num_sequences=2) as engine:
        handles = [engine.service.submit(ask(f"r{index}", 100 * index, max_tokens=6)) for index in range(6)]
        readers = [asyncio.create_task(read(handle)) for handle in handles[2:]]
        engine.permit(4)  # the first step may have begun before the second request came
        seen = [[await anext(handle) for _ in range(3)] for handle in handles[:2]]
        assert engine.service.health().num_running == 2
        engine.kill()
        died = await engine.reach("restarting")
        rest = [await read(handle) for handle in handles[:2]]
        engine.permit(100)
        served = await asyncio.gather(*readers)
        await engine.reach("ready")
        health = engine.service.health()

    assert [tokens(events) for events in seen] == [[1, 2, 3], [101, 102, 103]]
    assert [(events[-1].finish, events[-1].error) for events in rest] == [("error", "engine_died")] * 2
    assert all(len(tokens(events)) <= 1 for events in rest)
    assert [tokens(events) for events in served] == [[100 * index + n for n in range(1, 7)] for index in range(2, 6)]
    assert [events[-1].finish for events in served] == ["length"] * 4
    assert died.last_exit is not None
    assert (died.last_exit.code, died.last_exit.detail) == ("signal", "SIGKILL")
    assert (died.is_healthy, died.num_running, died.num_waiting) == (False, 0, 4)
    assert (health.state, health.restarts, health.is_healthy) == ("ready", 1, True)


def test_kill_under_load_on_uvloop(tmp_path):
    """The appliance runs on uvloop, whose sockets and child processes are its own: the promise is the same there."""
    uvloop.run(test_kill_under_load_ends_the_started_and_serves_the_queued(tmp_path))


async def test_queue_time_counts_the_wait_before_the_restart(tmp_path):
    """A request that outlived a process tells the whole time it waited, not the time in the last process."""
    clock = [100.0]
    async with scripted(tmp_path, gated=True, now=lambda: clock[0], max_num_sequences=1) as engine:
        engine.service.submit(ask("first"))
        second = engine.service.submit(ask("second"))
        engine.permit(1)
        clock[0] += 7.0
        engine.kill()
        await engine.reach("ready")
        engine.permit(100)
        events = await read(second)
    assert events[0].queue_time_s == pytest.approx(7.0)


async def test_requests_are_taken_while_the_process_restarts(tmp_path):
    """The queue is the service's: it is open between two processes."""
    async with scripted(tmp_path) as engine:
        engine.kill()
        await engine.reach("restarting")
        events = await read(engine.service.submit(ask("between")))
    assert tokens(events) == [2, 3, 4, 5]


async def test_cancelled_request_does_not_outlive_its_process(tmp_path):
    """A request cancelled just before the death ends as cancelled and is not tried again."""
    async with scripted(tmp_path, gated=True, max_num_sequences=1) as engine:
        running = engine.service.submit(ask("running"))
        waiting = engine.service.submit(ask("waiting"))
        engine.permit(1)
        await anext(running)
        running.cancel()
        waiting.cancel()
        engine.kill()
        ends = [(await read(handle))[-1] for handle in (running, waiting)]
        await engine.reach("ready")
        assert engine.service.health().num_waiting == 0
    assert [(end.finish, end.error) for end in ends] == [("cancelled", None)] * 2


async def test_cancel_between_two_processes_ends_at_once(tmp_path):
    """With no process to tell, the service ends the request itself."""
    async with scripted(tmp_path) as engine:
        engine.kill()
        await engine.reach("restarting")
        handle = engine.service.submit(ask("between"))
        handle.cancel()
        (end,) = await read(handle)
        await engine.reach("ready")
    assert end.finish == "cancelled"


@pytest.mark.parametrize("poison", [KILLS_IN_STEP, RAISES_IN_STEP, RAISES_IN_ADD])
async def test_poisoned_request_is_tried_once(tmp_path, poison):
    """A request that ends the process does so once: it is not handed to the next one, its neighbours are."""
    async with scripted(tmp_path, max_num_sequences=1) as engine:
        handles = [engine.service.submit(ask("poison", poison)), engine.service.submit(ask("neighbour", 10))]
        poisoned, neighbour = [await read(handle) for handle in handles]
        health = engine.service.health()
    assert [(event.finish, event.error) for event in poisoned] == [("error", "engine_died")]
    assert tokens(neighbour) == [11, 12, 13, 14]
    assert health.restarts == 1


@pytest.mark.parametrize("poison", [RAISES_IN_STEP, RAISES_IN_ADD])
async def test_last_words_name_code_and_never_data(tmp_path, capfd, poison):
    """The text of an exception, which may quote a prompt, reaches neither stderr nor the health."""
    async with scripted(tmp_path) as engine:
        await read(engine.service.submit(ask("poison", poison)))
        last_exit = engine.service.health().last_exit
        await engine.reach("ready")
    assert last_exit is not None
    assert last_exit.code == "step_failed"
    assert "scripted_worker.py:" in last_exit.detail
    stderr = capfd.readouterr().err
    assert "step_failed" in stderr
    assert SECRET not in last_exit.detail + stderr


async def test_too_many_deaths_without_progress_give_up(tmp_path):
    """The queue is told, health says it, and nothing is taken any more."""
    async with scripted(tmp_path, gated=True, max_num_sequences=1) as engine:
        handles = [engine.service.submit(ask(f"r{index}")) for index in range(3)]
        engine.permit(1)
        await anext(handles[0])
        (tmp_path / "kills").touch()  # every next process dies while it loads
        engine.kill()
        failed = await engine.reach("failed")
        ends = [(await read(handle))[-1] for handle in handles]
        with pytest.raises(EngineStopped) as refused:
            engine.service.submit(ask("late"))
    assert [end.error for end in ends] == ["engine_died", "engine_failed", "engine_failed"]
    assert (failed.restarts, failed.is_healthy, failed.pid) == (2, False, None)
    assert refused.value.state == "failed"


async def test_a_machine_that_refuses_processes_is_waited_out(tmp_path, monkeypatch):
    """No free descriptor, more often than an engine may die: with one again it starts, and the queue is served."""
    num_refused = 4 * AT_ONCE.max_deaths_in_row
    seen = []
    make_pair = socket.socketpair
    async with scripted(tmp_path) as engine:

        def make_pair_when_granted():
            seen.append(engine.service.health())
            if len(seen) <= num_refused:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return make_pair()

        monkeypatch.setattr("engine.worker_process.socket.socketpair", make_pair_when_granted)
        engine.kill()
        await engine.reach("restarting")
        kept = engine.service.submit(ask("kept"))
        events = await read(kept)
        served = engine.service.health()
    assert {health.state for health in seen} == {"restarting"}
    assert [health.last_exit.code for health in seen] == ["signal"] + ["spawn_failed"] * num_refused
    assert {health.last_exit.detail for health in seen[1:]} == {"EMFILE"}
    assert (events[-1].finish, tokens(events)) == ("length", [2, 3, 4, 5])
    assert (served.state, served.restarts) == ("ready", 1)


def test_a_machine_that_refuses_processes_is_waited_out_on_uvloop(tmp_path, monkeypatch):
    """The same on the appliance's own event loop."""
    uvloop.run(test_a_machine_that_refuses_processes_is_waited_out(tmp_path, monkeypatch))


async def test_refusals_of_the_machine_hide_no_deaths(tmp_path, monkeypatch):
    """Deaths between refused starts still add up, and end in `failed`."""
    num_starts = 0
    make_pair = socket.socketpair

    def make_every_other_pair():
        nonlocal num_starts
        num_starts += 1
        if num_starts % 2:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return make_pair()

    async with scripted(tmp_path) as engine:
        (tmp_path / "kills").touch()  # every next process dies while it loads
        monkeypatch.setattr("engine.worker_process.socket.socketpair", make_every_other_pair)
        engine.kill()
        failed = await engine.reach("failed")
    assert (failed.restarts, num_starts) == (2, 4)
    assert failed.last_exit.code == "signal"


async def test_model_changed_between_two_processes_is_not_served(tmp_path):
    """The model is verified anew at each start: a folder that went bad meanwhile is refused, and the file is named."""
    async with scripted(tmp_path) as engine:
        (tmp_path / "bad.safetensors").touch()
        engine.kill()
        failed = await engine.reach("failed")
    assert failed.last_exit is not None
    assert failed.last_exit.code == "load_failed"
    assert failed.last_exit.detail.startswith("bad.safetensors: its SHA-256 is")


async def test_deaths_with_progress_between_them_do_not_add_up(tmp_path):
    """An engine that serves between its deaths is restarted every time."""
    async with scripted(tmp_path) as engine:
        for turn in range(5):
            assert (await read(engine.service.submit(ask(f"r{turn}"))))[-1].finish == "length"
            engine.kill()
            await engine.reach("ready")
        assert engine.service.health().restarts == 5


async def test_books_that_do_not_balance_end_the_process(tmp_path):
    """The idle check finds lost pages; the engine starts from clean books rather than serve from broken ones."""
    async with scripted(tmp_path) as engine:
        await read(engine.service.submit(ask("breaks", BREAKS_BOOKS)))
        died = await engine.reach("restarting")
        await engine.reach("ready")
    assert died.last_exit is not None
    assert died.last_exit.code == "integrity_failed"
    assert SECRET not in died.last_exit.detail


async def test_counters_outlive_the_process(tmp_path):
    """Tokens, steps and ends are counted since start; the gauges are of the present process."""
    async with scripted(tmp_path) as engine:
        await read(engine.service.submit(ask("before", 1, 2, 3)))
        engine.kill()
        await engine.reach("ready")
        between = engine.service.stats()
        age_s = engine.service.health().last_step_age_s
        await read(engine.service.submit(ask("after", 1, 2)))
        after = engine.service.stats()
    assert (between.core, between.counts.num_steps, age_s) == (None, 4, None)
    assert after.core is not None
    assert (after.num_prompt_tokens, after.num_output_tokens) == (5, 8)
    assert (after.counts.num_steps, after.counts.num_preemptions) == (8, 8)
    assert after.num_finished == (("length", 2),)
    assert after.restarts == 1
