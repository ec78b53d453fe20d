"""kill -9 while a person is being erased, at no chosen moment: the next start leaves no half erasure."""

from __future__ import annotations

import random
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest
from live_appliance import LiveAppliance, running_appliance, start_appliance

from appliance.audit_trail import PAIRING
from appliance.cli.audit.evidence_files import read_vkey
from audit.verify import verify_log

ROUNDS = 3
ROUNDS_SLOW = 40
BODY = {"model": "starter", "prompt": "Once", "max_tokens": 2}


@pytest.mark.timeout(900)
def test_the_next_start_finishes_or_never_began(tmp_path: Path):
    """The default rounds."""
    _rounds(tmp_path, ROUNDS)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_next_start_finishes_or_never_began_for_long(tmp_path: Path):
    """The long lane."""
    _rounds(tmp_path, ROUNDS_SLOW)


def _rounds(tmp_path: Path, num_rounds: int) -> None:
    state = tmp_path / "state"
    moments = random.Random(11)
    for _ in range(num_rounds):
        appliance = start_appliance(state)
        with appliance.client("developer") as developer:
            developer.post("/v1/completions", json=BODY).raise_for_status()
        _kill_while_erasing(appliance, moments.uniform(0.0, 0.03))
        with running_appliance(state) as again, again.client("auditor") as auditor:
            _require_whole(state, _events(auditor, "subject:erasing"), _events(auditor, "subject:erased"))
    vkey = read_vkey(state / "log" / "verifier.vkey")
    assert verify_log(state / "log" / "audit.db", [vkey], PAIRING).ok


def _kill_while_erasing(appliance: LiveAppliance, after_s: float) -> None:
    """The moment is drawn; whether it falls before, into or after the erasure is not asserted."""
    killing = threading.Timer(after_s, appliance.process.kill)
    body = {"subject": "developer", "tenant": "development", "reason": "request 12"}
    with appliance.client("privacy") as officer, suppress(httpx.TransportError):
        killing.start()
        officer.post("/audit/erasures", json=body)
    killing.join()
    appliance.process.wait(60)


def _events(auditor: httpx.Client, kind: str) -> list[dict]:
    rows = auditor.get("/audit/entries", params={"kind": kind, "limit": 1000}).json()["data"]
    return [row["entry"] for row in rows]


def _require_whole(state: Path, erasing: list[dict], erased: list[dict]) -> None:
    """Every decision is done, everything done was decided, and the keys' file says the same."""
    assert {one["index"] for one in erasing} == {one["facts"]["erasing_index"] for one in erased}
    decided = {key_id for one in erasing for key_id in one["facts"]["key_ids"]}
    with closing(sqlite3.connect(f"file:{state / 'subject_keys.db'}?mode=ro", uri=True)) as keys:
        destroyed = {key_id for (key_id,) in keys.execute("SELECT key_id FROM subject_key WHERE destroyed = 1")}
    assert destroyed == decided
