"""kill -9 of the engine process under load: the API stays up, each request ends clearly, the queue is served."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from live_appliance import SERVE, LiveAppliance, running_appliance, start_appliance

NUM_RUNNING = 2
NUM_FILES, NUM_STRANGERS = 400, 600
"""Descriptors that the appliance may have; connections that people without a key open."""
RECOVERY_DEADLINE_S = 60
NUM_REQUESTS = 6


@dataclass
class Answer:
    """One streamed answer as its client saw it."""

    began: threading.Event
    """Set by the first token of any answer."""
    request_id: str = ""
    num_tokens: int = 0
    error_code: str | None = None
    done: bool = False


def _stream(appliance: LiveAppliance, answer: Answer) -> None:
    body = {"model": "starter", "prompt": "The pump", "max_tokens": 400, "ignore_eos": True, "stream": True}
    with appliance.client("developer") as client, client.stream("POST", "/v1/completions", json=body) as response:
        answer.request_id = response.headers["x-request-id"]
        for line in response.iter_lines():
            if line == "data: [DONE]":
                answer.done = True
            elif line.startswith("data: "):
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    answer.error_code = chunk["error"]["code"]
                elif chunk["choices"] and chunk["choices"][0]["text"]:
                    answer.num_tokens += 1
                    answer.began.set()


def _engine_pid(appliance: LiveAppliance) -> int:
    pid = _engine_pid_or_none(appliance)
    assert pid is not None
    return pid


def _engine_pid_or_none(appliance: LiveAppliance) -> int | None:
    children = Path(f"/proc/{appliance.process.pid}/task/{appliance.process.pid}/children").read_text().split()
    for pid in children:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may end while it is looked at
            if b"engine.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
    return None


def _kinds(appliance: LiveAppliance, subject: str) -> list[str]:
    with appliance.client("auditor") as auditor:
        rows = auditor.get("/audit/entries", params={"subject": subject, "limit": 100}).json()["data"]
    return [row["entry"]["kind"] for row in rows]


def test_strangers_cannot_keep_a_dead_engine_down(tmp_path: Path):
    """Idle connections beyond the bound are dropped; an engine that dies meanwhile is replaced, and requests served."""
    if not Path("/proc/self/task").exists():
        pytest.skip("finding the engine process needs /proc")
    limited = ("sh", "-c", f'ulimit -n {NUM_FILES}; exec "$@"', "sh", *SERVE)
    appliance = start_appliance(tmp_path / "state", limited)
    try:
        engine_pid = _engine_pid(appliance)
        port = int(appliance.url.rsplit(":", 1)[1])
        with contextlib.ExitStack() as strangers:
            for _ in range(NUM_STRANGERS):
                strangers.enter_context(socket.create_connection(("127.0.0.1", port)))
            os.kill(engine_pid, signal.SIGKILL)
            deadline = time.monotonic() + RECOVERY_DEADLINE_S
            while (new_pid := _engine_pid_or_none(appliance)) in {None, engine_pid}:
                assert time.monotonic() < deadline, "no engine while the strangers held on"
            assert new_pid is not None
        with appliance.client("developer") as developer:
            body = {"model": "starter", "prompt": "The", "max_tokens": 1}
            assert developer.post("/v1/completions", json=body).status_code == 200
        lines = [json.loads(line) for line in (tmp_path / "state.stderr").read_text().splitlines()]
        told = [line for line in lines if line["event"] == "connections_full"]
        assert told
        assert {line["max_connections"] for line in told} == {NUM_FILES // 4}
    finally:
        assert appliance.stop() == 0


def test_the_engine_dies_alone(tmp_path: Path):
    """In-flight requests end with `engine_died` and a record, queued ones are served, `/readyz` says what happened."""
    if not Path("/proc/self/task").exists():
        pytest.skip("finding the engine process needs /proc")
    settings = {"CLOISTER_MAX_NUM_SEQUENCES": str(NUM_RUNNING)}
    with running_appliance(tmp_path / "state", **settings) as appliance:
        began = threading.Event()
        answers = [Answer(began) for _ in range(NUM_REQUESTS)]
        threads = [threading.Thread(target=_stream, args=(appliance, answer)) for answer in answers]
        for thread in threads:
            thread.start()
        began.wait()
        os.kill(_engine_pid(appliance), signal.SIGKILL)
        for thread in threads:
            thread.join()

        died = [answer for answer in answers if answer.error_code is not None]
        served = [answer for answer in answers if answer.done]
        assert len(died) + len(served) == NUM_REQUESTS
        assert {answer.error_code for answer in died} == {"engine_died"}
        assert 1 <= len(died) <= NUM_RUNNING
        assert all(answer.num_tokens for answer in served)
        for answer in died:
            assert _kinds(appliance, answer.request_id) == ["request:admitted", "request:failed"]
        for answer in served:
            assert _kinds(appliance, answer.request_id) == ["request:admitted", "request:completed"]

        ready = httpx.get(f"{appliance.url}/readyz", trust_env=False)
        assert ready.status_code == 200
        engine = ready.json()["engine"]
        assert engine["restarts"] == 1
        assert engine["last_exit"]["code"] == "signal"
        deadline = time.monotonic() + 30
        while _kinds(appliance, "engine") != ["engine:died", "engine:recovered"]:
            assert time.monotonic() < deadline, _kinds(appliance, "engine")
