"""The log and the engine agree after answers, stop strings, hang-ups, full queues, a dead engine, a stop and a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from live_appliance import LiveAppliance, start_appliance

LONG = {"model": "starter", "prompt": "Pump", "max_tokens": 400, "ignore_eos": True}


def reconciled(appliance: LiveAppliance, runs: int = 1) -> dict:
    """Ask until nothing runs any more that was given up."""
    while True:
        with appliance.client("auditor") as auditor:
            found = auditor.get("/audit/reconciliation", params={"runs": runs}).raise_for_status().json()
        if found["runs"][-1]["num_open"] == 0:
            return found


def post(appliance: LiveAppliance, **changes: object) -> httpx.Response:
    """Ask for a completion."""
    with appliance.client("developer") as client:
        return client.post("/v1/completions", json={**LONG, "max_tokens": 8, **changes})


def engine_pid(appliance: LiveAppliance) -> int:
    """Find the engine process."""
    for thread in Path(f"/proc/{appliance.process.pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            if b"engine.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    raise AssertionError("no engine process")


def hang_up_in_the_middle(appliance: LiveAppliance) -> None:
    """Read a piece of a streamed answer and go away."""
    with (
        appliance.client("developer") as client,
        client.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as response,
    ):
        next(response.iter_lines())


@pytest.mark.timeout(300)
def test_tokens_in_the_log_are_the_engines(tmp_path: Path):
    """Exactly, token by token, whatever became of each request; and the next run can account for this one."""
    narrow = {"CLOISTER_MAX_NUM_SEQUENCES": "1", "CLOISTER_MAX_QUEUE_LEN": "2"}
    appliance = start_appliance(tmp_path / "state", **narrow)
    try:
        answer_stop_hang_up_and_crowd(appliance)
        found = reconciled(appliance)
        assert found["verdict"] == "balanced", found
        assert found["runs"][0]["recorded"]["output_tokens"] > 0
        kill_the_engine_under_a_request(appliance)
        assert reconciled(appliance)["verdict"] == "balanced"
    finally:
        appliance.stop()
    again = start_appliance(tmp_path / "state")
    try:
        post(again)
        both = reconciled(again, runs=2)
        assert [run["verdict"] for run in both["runs"]] == ["balanced", "balanced"], both
        assert [run["counted_by"] for run in both["runs"]] == ["appliance:stopped", "now"]
        said = command(again, "--runs", "2")
        assert (said.returncode, said.stdout.splitlines()[-1]) == (0, "BALANCED"), said
        assert json.loads(command(again, "--json").stdout)["runs"][0]["num_admitted"] == 2
    finally:
        again.kill()
    last = start_appliance(tmp_path / "state")
    try:
        killed = reconciled(last, runs=2)["runs"][0]
        assert (killed["verdict"], killed["counted"]) == ("uncounted", None)
    finally:
        last.stop()


def answer_stop_hang_up_and_crowd(appliance: LiveAppliance) -> None:
    """Leave one request behind of every kind that costs the engine tokens nobody is answered with."""
    assert post(appliance, n=2).status_code == 200
    assert post(appliance, stop=["e"], max_tokens=60).status_code == 200
    hang_up_in_the_middle(appliance)
    answers: list[int] = []
    askers = [
        threading.Thread(target=lambda: answers.append(post(appliance, n=2, max_tokens=60).status_code))
        for _ in range(6)
    ]
    for one in askers:
        one.start()
    for one in askers:
        one.join()
    assert 429 in answers, "some request found room for one of its two answers alone, or for none"
    assert 200 in answers


def kill_the_engine_under_a_request(appliance: LiveAppliance) -> None:
    """As the kernel does when memory runs out."""
    running = threading.Thread(target=post, args=(appliance,), kwargs={"max_tokens": 400})
    running.start()
    while reconciled_open(appliance) == 0:
        pass
    os.kill(engine_pid(appliance), signal.SIGKILL)
    running.join()


def command(appliance: LiveAppliance, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Type `cloister audit reconcile`."""
    typed = [str(Path(sys.executable).parent / "cloister"), "audit", "reconcile", *arguments]
    environment = {**os.environ, "CLOISTER_STATE_DIR": str(appliance.state_dir), "CLOISTER_URL": appliance.url}
    return subprocess.run(typed, env=environment, capture_output=True, text=True, check=False)


def reconciled_open(appliance: LiveAppliance) -> int:
    """Give how many requests run now, by the same account."""
    with appliance.client("auditor") as auditor:
        found = auditor.get("/audit/reconciliation").raise_for_status().json()
    assert found["verdict"] in {"open", "balanced"}, found
    open_now: int = found["runs"][0]["num_open"]
    return open_now


def test_the_account_is_the_auditors(live: LiveAppliance):
    """The operator may not read the log; a number of runs that is none is refused by name."""
    with live.client("operator") as operator:
        assert operator.get("/audit/reconciliation").status_code == 403
    with live.client("auditor") as auditor:
        answer = auditor.get("/audit/reconciliation", params={"runs": 0})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "runs")
        good = auditor.get("/audit/reconciliation")
        index = good.headers["x-cloister-receipt"].split(":")[0]
        facts = auditor.get(f"/audit/entries/{index}").json()["entry"]["facts"]
    assert (facts["what"], facts["runs"]) == ("reconciliation", 1)


def test_without_an_appliance_the_command_says_so(tmp_path: Path):
    """One line."""
    environment = {**os.environ, "CLOISTER_STATE_DIR": str(tmp_path), "CLOISTER_API_KEY": "cls_dev_x"}
    command = [str(Path(sys.executable).parent / "cloister"), "audit", "reconcile"]
    said = subprocess.run(
        command, env={**environment, "CLOISTER_PORT": "1"}, capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert "no appliance answers" in said.stderr
