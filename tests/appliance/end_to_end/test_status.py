"""`cloister audit status` on a live appliance, and the halt of one run in the log of the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from live_appliance import LiveAppliance, start_appliance

COMMAND = [str(Path(sys.executable).parent / "cloister"), "audit", "status"]


def typed(live: LiveAppliance, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Type the command."""
    environment = {**os.environ, "CLOISTER_STATE_DIR": str(live.state_dir), "CLOISTER_URL": live.url}
    return subprocess.run([*COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_the_status_says_what_is_there(live: LiveAppliance):
    """Head, run, writer, figures of the files, disk, clock: for the operator and the auditor, not for the developer."""
    with live.client("developer") as developer:
        answer = developer.post("/v1/completions", json={"model": "starter", "prompt": "Pump", "max_tokens": 3})
        index = int(answer.raise_for_status().headers["x-cloister-receipt"].split(":")[0])
        assert developer.get("/audit/status").status_code == 403
    for role in ("operator", "auditor"):
        with live.client(role) as client:
            found = client.get("/audit/status").raise_for_status().json()
            assert client.get("/audit/status", params={"x": 1}).status_code == 400
    with live.client("auditor") as auditor:
        place = auditor.get(f"/audit/entries/{index}").json()["entry"]
    assert found["tree_size"] > index
    assert (found["boot_id"], found["epoch"], found["node_id"]) == (place["boot_id"], place["epoch"], place["node_id"])
    assert place["facts"]["clock_state"] == found["clock"]["state"]
    assert place["facts"]["source"] == "127.0.0.1"
    log = live.state_dir / "log"
    on_disk = sum((log / name).stat().st_size for name in ("audit.db", "audit.db-wal"))
    assert 0 < found["size"]["used_bytes"] <= on_disk
    size = found["size"]
    assert size["bytes_per_leaf"] == pytest.approx(size["used_bytes"] / size["num_stored"], 0.01)
    assert size["bytes_per_request"] > size["bytes_per_leaf"]
    assert found["writer"]["state"] == "running"
    assert found["writer"]["last_commit"]["num_leaves"] >= 1
    assert found["writer"]["longest_wait_ms"] > 0
    assert 0 < found["disk"]["fill_ratio"] < 1.5
    assert (found["exports"], found["anchors"]) == ([], [])
    said = typed(live)
    assert said.returncode == 0, said.stderr
    assert f"run {found['epoch']}, boot {found['boot_id']}" in said.stdout
    assert "bytes per request" in said.stdout
    assert json.loads(typed(live, "--json").stdout)["origin"] == found["origin"]


def test_the_admission_names_quantisation_and_adapter(live: LiveAppliance):
    """What the engine read of the model, and that nothing was laid over it."""
    with live.client("developer") as developer:
        developer.post("/v1/completions", json={"model": "starter", "prompt": "Pump", "max_tokens": 1})
    with live.client("auditor") as auditor:
        rows = auditor.get("/audit/entries", params={"kind": "request:admitted", "order": "desc"}).json()["data"]
        loaded = auditor.get("/audit/entries", params={"kind": "model:loaded"}).json()["data"]
    facts = rows[0]["entry"]["facts"]
    assert (facts["adapter"], facts["quantisation"]) == ("none", "none")
    assert loaded[0]["entry"]["facts"]["quantisation"] == "none"


@pytest.mark.timeout(180)
def test_a_halt_stands_in_the_log_of_the_next_run(tmp_path: Path):
    """The log's file is taken away under a running appliance: it halts, and the next start says why and when."""
    state = tmp_path / "state"
    halting = start_appliance(state)
    lock = state / "log" / "audit.db.writer"
    lock.rename(lock.with_name("elsewhere"))
    with halting.client("developer") as developer:
        answer = developer.post("/v1/completions", json={"model": "starter", "prompt": "Pump", "max_tokens": 1})
    assert answer.status_code == 503
    with halting.client("operator") as operator:
        metrics = operator.get("/metrics").text
        size = operator.get("/audit/status").json()["tree_size"]
    assert "cloister_audit_halted 1.0" in metrics
    assert halting.stop() == 1
    lock.with_name("elsewhere").rename(lock)
    again = start_appliance(state)
    try:
        with again.client("auditor") as auditor:
            [row] = auditor.get("/audit/entries", params={"kind": "log:halted"}).json()["data"]
        facts = row["entry"]["facts"]
        assert "audit.db.writer was removed" in facts["reason"]
        assert (facts["halted_epoch"], facts["tree_size"]) == (row["entry"]["epoch"] - 1, size)
        assert row["index"] == size + 1, "right behind appliance:started"
    finally:
        again.stop()


@pytest.mark.parametrize(
    ("page", "heading"), [("operate.md", "## The log"), ("audit.md", "## The log beside the engine")]
)
def test_the_pages_commands_work_as_they_stand(live: LiveAppliance, repository: Path, page: str, heading: str):
    """Every command of the block is typed."""
    text = (repository / "docs" / page).read_text().partition(f"{heading}\n")[2]
    block = text.partition("```console\n")[2].partition("```")[0]
    commands = [line.partition("#")[0].split() for line in block.splitlines()]
    assert commands
    environment = {**os.environ, "CLOISTER_STATE_DIR": str(live.state_dir), "CLOISTER_URL": live.url}
    for command in commands:
        assert command[0] == ".venv/bin/cloister"
        said = subprocess.run([COMMAND[0], *command[1:]], env=environment, capture_output=True, text=True, check=False)
        assert said.returncode == 0, (command, said.stderr)
        assert said.stdout
