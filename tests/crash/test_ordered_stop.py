"""Ctrl-C: stop admitting, finish or cancel with records, sign the last checkpoint."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import httpx
from live_appliance import running_appliance, start_appliance

from appliance.audit_trail import PAIRING
from audit.checkpoint import LogVerifier
from audit.reader import AuditReader
from audit.verify import verify_log


def test_a_stop_in_the_middle_of_an_answer_leaves_a_whole_log(tmp_path: Path):
    """A running answer is cancelled at the deadline with its record; `appliance:stopped` is the last, signed entry."""
    state_dir = tmp_path / "state"
    appliance = start_appliance(state_dir, CLOISTER_DRAIN_DEADLINE_S="0")
    began = threading.Event()
    lines: list[str] = []

    def ask() -> None:
        body = {"model": "starter", "prompt": "The", "max_tokens": 900, "ignore_eos": True, "stream": True}
        with appliance.client("developer") as client, client.stream("POST", "/v1/completions", json=body) as response:
            for line in response.iter_lines():
                lines.append(line)
                began.set()

    asking = threading.Thread(target=ask)
    asking.start()
    began.wait()
    assert appliance.stop() == 0
    asking.join()
    last_event = json.loads([line for line in lines if line.startswith("data: ")][-1].removeprefix("data: "))
    assert last_event["error"]["code"] == "appliance_stopping"

    log, vkey = state_dir / "log" / "audit.db", (state_dir / "log" / "verifier.vkey").read_text().strip()
    report = verify_log(log, [LogVerifier.from_vkey(vkey)], PAIRING)
    assert report.ok
    assert report.unfinished == ()
    assert report.head_size == report.num_leaves
    with AuditReader(log) as reader:
        kinds = [entry.leaf.event.kind for entry in reader.tail(3)]
    assert kinds[-1] == "appliance:stopped"
    assert "request:cancelled" in kinds


def test_a_stop_that_the_log_cannot_hold_says_so(tmp_path: Path):
    """After the log has halted the stop is in order all the same, and ends with code 1 and one line that says why."""
    state_dir = tmp_path / "state"
    appliance = start_appliance(state_dir)
    log = state_dir / "log" / "audit.db"
    log.rename(log.with_suffix(".away"))
    with appliance.client("developer") as client:
        response = client.post("/v1/completions", json={"model": "starter", "prompt": "The", "max_tokens": 1})
    assert response.json()["error"]["code"] == "log_unavailable"
    assert appliance.stop() == 1
    stderr = (tmp_path / "state.stderr").read_text()
    assert "Traceback" not in stderr
    (said,) = [line for line in stderr.splitlines() if line.startswith("cloister: ")]
    assert said.startswith("cloister: the log had halted, so this stop is not recorded: ")


def test_a_second_start_reuses_the_state_and_shows_no_secret_again(tmp_path: Path):
    """Keys, log and trust root survive a restart; only the first banner shows the keys."""
    state_dir = tmp_path / "state"
    with running_appliance(state_dir) as first:
        keys = dict(first.keys)
        assert all(key in first.banner for key in keys.values())
    with running_appliance(state_dir) as second:
        assert dict(second.keys) == keys
        assert not any(key in second.banner for key in keys.values())
        with second.client("developer") as client:
            assert client.get("/v1/models").status_code == 200


def test_a_revoked_key_is_refused_from_the_next_request_on(tmp_path: Path):
    """The operator revokes through the API; the act is recorded and holds at once, and after a restart."""
    state_dir = tmp_path / "state"
    with running_appliance(state_dir) as appliance:
        with appliance.client("operator") as operator:
            rows = operator.get("/keys").json()["data"]
            (key_id,) = (row["id"] for row in rows if "developer" in row["roles"])
            assert operator.post(f"/keys/{key_id}/revoke").status_code == 200
        with appliance.client("developer") as developer:
            assert developer.get("/v1/models").status_code == 401
        with appliance.client("auditor") as auditor:
            entries = auditor.get("/audit/entries", params={"kind": "key:revoked"}).json()["data"]
            reasons = auditor.get("/audit/entries", params={"kind": "auth:refused"}).json()["data"]
        assert [row["entry"]["subject"] for row in entries] == [key_id]
        assert reasons[-1]["entry"]["facts"]["reason"] == "revoked"
        assert httpx.get(f"{appliance.url}/livez", trust_env=False).status_code == 200
