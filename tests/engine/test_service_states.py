"""Start, stop and health: the states of the service seen from outside."""

from __future__ import annotations

import asyncio
import os

import pytest
import scripted_worker
from scripted_service import Scripted, ask, read, scripted, tokens

from engine.config import EngineConfig
from engine.errors import EngineLoadError, EngineStopped
from engine.service import EngineService
from engine.supervision import RestartPolicy
from engine.worker_process import WorkerProcess


def service_for(folder, **options):
    """A service of the scripted engine, not started."""
    config = EngineConfig(model_dir=str(folder), file_digests=())
    return EngineService(config, worker_command=scripted_worker.COMMAND, **options)


async def test_load_failure_names_the_file(tmp_path):
    """The operator hears which file is at fault and what to do; health says failed; no process stays."""
    (tmp_path / "bad.safetensors").touch()
    service = service_for(tmp_path)
    with pytest.raises(EngineLoadError, match=r"bad\.safetensors") as failure:
        await service.start()
    health = service.health()
    await service.stop(0.0)
    assert failure.value.file == "bad.safetensors"
    assert "SHA-256" in failure.value.reason
    assert failure.value.hint
    assert (health.state, health.pid, health.is_healthy) == ("failed", None, False)


async def test_death_while_loading_is_a_load_error(tmp_path):
    """A process that is killed while it loads (as the kernel does when memory runs out) is not waited for for ever."""
    (tmp_path / "kills").touch()
    with pytest.raises(EngineLoadError, match="SIGKILL"):
        await service_for(tmp_path).start()


async def test_process_that_babbles_is_killed(tmp_path):
    """Bytes that are no frame end the connection and the process."""
    (tmp_path / "babbles").touch()
    service = service_for(tmp_path)
    with pytest.raises(EngineLoadError, match="malformed_frame"):
        await service.start()


async def test_program_that_cannot_be_started_is_a_load_error(tmp_path):
    """A missing interpreter is told as such."""
    config = EngineConfig(model_dir=str(tmp_path), file_digests=())
    service = EngineService(config, worker_command=(str(tmp_path / "absent"),))
    with pytest.raises(EngineLoadError, match="ENOENT"):
        await service.start()


async def test_stop_waits_for_what_runs_and_takes_nothing_more(tmp_path):
    """Within the deadline, live requests end by themselves."""
    async with scripted(tmp_path, gated=True, max_num_sequences=1) as engine:
        handles = [engine.service.submit(ask(f"r{n}")) for n in range(2)]
        stopping = asyncio.create_task(engine.service.stop(60.0))
        await asyncio.sleep(0)
        with pytest.raises(EngineStopped, match="stopping"):
            engine.service.submit(ask("late"))
        engine.permit(8)
        answers = [await read(handle) for handle in handles]
        await stopping
        assert engine.service.health().state == "stopped"
    assert [tokens(events) for events in answers] == [[2, 3, 4, 5]] * 2


async def test_stop_cancels_at_the_deadline(tmp_path):
    """What outlives the deadline ends as cancelled, running or waiting, and the process ends."""
    async with scripted(tmp_path, max_num_sequences=1) as engine:
        handles = [engine.service.submit(ask(f"r{n}", max_tokens=10**6)) for n in range(3)]
        await anext(handles[0])
        await engine.service.stop(0.0)
        ends = [(await read(handle))[-1].finish for handle in handles]
        assert engine.service.health().pid is None
    assert ends == ["cancelled"] * 3


async def test_stop_ends_a_process_that_hangs(tmp_path, monkeypatch):
    """A process stuck in a step is killed, and its requests still get their end."""
    monkeypatch.setattr("engine.service.CANCEL_GRACE_S", 0.05)
    monkeypatch.setattr("engine.worker_process.EXIT_GRACE_S", 0.05)
    async with scripted(tmp_path, gated=True) as engine:
        handle = engine.service.submit(ask("stuck"))
        await engine.service.stop(0.0)
        assert [event.finish for event in await read(handle)] == ["cancelled"]


async def test_stop_while_waiting_for_a_restart(tmp_path):
    """An order to stop does not wait for the backoff; the queue is told."""
    engine = Scripted(tmp_path, gated=False, now=None)
    service = service_for(
        tmp_path, restart=RestartPolicy(first_delay_s=3600.0, max_delay_s=3600.0), on_change=engine._states.put_nowait
    )
    engine.service = service
    await service.start()
    engine.kill()
    await engine.reach("restarting")
    handle = service.submit(ask("queued"))
    await service.stop(0.0)
    assert [event.finish for event in await read(handle)] == ["cancelled"]
    assert service.health().state == "stopped"


async def test_stop_while_loading(tmp_path):
    """The first load can be given up: start says so, the process ends."""
    os.mkfifo(tmp_path / "hangs")
    service = service_for(tmp_path)
    starting = asyncio.create_task(service.start())
    pid = int(await asyncio.to_thread((tmp_path / "hangs").read_text))
    await service.stop(0.0)
    with pytest.raises(EngineStopped):
        await starting
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert (service.health().state, service.health().pid) == ("stopped", None)


async def test_start_that_is_cancelled_leaves_no_process(tmp_path):
    """Whoever gives up waiting for the load gets the process ended."""
    os.mkfifo(tmp_path / "hangs")
    service = service_for(tmp_path)
    starting = asyncio.create_task(service.start())
    pid = int(await asyncio.to_thread((tmp_path / "hangs").read_text))
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert (service.health().state, service.health().pid) == ("stopped", None)


async def test_stop_at_the_end_of_the_load_leaves_no_process(tmp_path, monkeypatch):
    """An order that comes with the load's last byte ends that process; it is not taken for a death to be mended."""
    service = service_for(tmp_path, restart=RestartPolicy(first_delay_s=0.0))
    load, seen = WorkerProcess.load, []

    async def load_and_stop(worker):
        loaded = await load(worker)
        seen.extend([worker.pid, asyncio.create_task(service.stop(0.0))])
        return loaded

    monkeypatch.setattr(WorkerProcess, "load", load_and_stop)
    with pytest.raises(EngineStopped, match="stopping"):
        await service.start()
    pid, stopping = seen
    await stopping
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    health = service.health()
    assert (health.state, health.pid, health.restarts, health.last_exit) == ("stopped", None, 0, None)


async def test_stop_is_safe_twice_and_before_the_start(tmp_path):
    """Every order of calls ends in stopped; a stopped service does not start again."""
    service = service_for(tmp_path)
    await service.stop(0.0)
    await service.stop(0.0)
    with pytest.raises(EngineStopped):
        await service.start()


async def test_health_means_that_a_step_finished_recently(tmp_path):
    """A process that exists but does not finish its step is unhealthy; idling for long is not."""
    clock = [0.0]
    async with scripted(tmp_path, gated=True, now=lambda: clock[0]) as engine:
        clock[0] = 1000.0
        idle = engine.service.health()
        handle = engine.service.submit(ask("r"))
        clock[0] = 1029.0
        slow = engine.service.health()
        clock[0] = 1031.0
        stalled = engine.service.health()
        engine.permit(1)
        await anext(handle)
        stepped = engine.service.health()
        clock[0] = 1062.0
        again = engine.service.health()
    assert (idle.is_healthy, idle.busy, idle.last_step_age_s) == (True, False, None)
    assert (slow.is_healthy, slow.busy) == (True, True)
    assert (stalled.is_healthy, stalled.state) == (False, "ready")
    assert (stepped.is_healthy, stepped.last_step_age_s) == (True, 0.0)
    assert (again.is_healthy, again.last_step_age_s) == (False, 31.0)
