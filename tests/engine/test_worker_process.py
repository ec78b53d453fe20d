"""The engine process seen from outside: what it inherits, whom it outlives, what it can reach."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import scripted_worker
from scripted_service import ask, read, scripted, sockets_of, tokens

from engine.worker_process import worker_environment

PARENT = """
import asyncio, sys
from engine.config import EngineConfig
from engine.service import EngineService
import scripted_worker

async def main() -> None:
    service = EngineService(
        EngineConfig(model_dir=sys.argv[1], file_digests=()), worker_command=scripted_worker.COMMAND
    )
    await service.start()
    print(service.health().pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def path_for_children(repository):
    """Where a child finds the engine and the scripted core."""
    return os.pathsep.join([str(repository), str(Path(scripted_worker.__file__).parent), os.environ["PYTHONPATH"]])


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open")
@pytest.mark.parametrize("gated", [False, True], ids=["idle", "inside a step"])
def test_parent_death_ends_the_engine_process(tmp_path, repository, gated):
    """Kill -9 of the API process leaves no engine process behind, not even one that is stuck in a step."""
    if gated:
        os.mkfifo(tmp_path / "permits")
    submit = "    service.submit(scripted_service.ask('r'))\n" if gated else ""
    source = PARENT.replace("import scripted_worker\n", "import scripted_worker, scripted_service\n")
    source = source.replace("    print(", submit + "    print(")
    with subprocess.Popen(
        [sys.executable, "-c", source, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path_for_children(repository)},
    ) as parent:
        worker_fd = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
        ended, _, _ = select.select([worker_fd], [], [], 30)
        os.close(worker_fd)
    assert ended, "the engine process outlived its parent by 30 s"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
async def test_engine_process_has_one_socket_and_no_network(tmp_path):
    """Its only socket is the inherited Unix one; nothing else of the API process's descriptors came along."""
    async with scripted(tmp_path) as engine:
        await read(engine.service.submit(ask("r")))
        sockets, internet_sockets = sockets_of(engine.service.health().pid)
    assert len(sockets) == 1
    assert not sockets & internet_sockets


async def test_terminal_and_unit_signals_leave_the_engine_to_its_service(tmp_path):
    """SIGINT, SIGTERM and SIGHUP reach every process of a unit at once; only the service decides when this one ends."""
    async with scripted(tmp_path, gated=True) as engine:
        handle = engine.service.submit(ask("r"))
        pid = engine.service.health().pid
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        engine.permit(4)
        assert tokens(await read(handle)) == [2, 3, 4, 5]
        assert os.getpgid(pid) != os.getpgid(0)
        assert engine.service.health().pid == pid


def test_environment_is_a_closed_list():
    """Secrets in the API process's environment do not reach the engine process."""
    environment = worker_environment(
        {"CLOISTER_PORT": "8600", "SECRET_PEPPER": "x", "OMP_NUM_THREADS": "1", "PYTHONPATH": "/a", "LD_PRELOAD": "/b"}
    )
    assert set(environment) == {"OMP_NUM_THREADS", "OMP_WAIT_POLICY", "PYTHONPATH"}
    assert environment["PYTHONPATH"].split(os.pathsep)[-1] == "/a"


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("engine.service", ["torch", "numpy", "fastapi", "sqlalchemy", "pydantic"]),
        ("engine.worker", ["fastapi", "starlette", "uvicorn", "sqlalchemy", "pydantic", "cryptography", "structlog"]),
    ],
)
def test_module_stays_light(repository, module, forbidden):
    """The service needs no tensors, the worker no web: neither loads what it must not know."""
    code = f"import {module}, json, sys; print(json.dumps([name for name in {forbidden!r} if name in sys.modules]))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": path_for_children(repository)},
    )
    assert json.loads(found.stdout) == []
