"""A disk without space: new requests are refused with the reason, nothing crashes, and the log verifies afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest
from live_appliance import REPOSITORY, LiveAppliance, running_appliance, start_appliance
from small_disk import fill, small_disk

from appliance.audit_trail import PAIRING
from audit.checkpoint import LogVerifier
from audit.verify import verify_log

TMPFS_BYTES = 48 * 2**20
ROOM_BYTES = 512 * 1024
"""What is left before the load starts: some commits."""
MAX_REQUESTS = 2000
ASKED = {"model": "starter", "prompt": "The pump", "max_tokens": 1}


def _ask_until_refused(appliance: LiveAppliance) -> tuple[int, httpx.Response]:
    """Ask until one request is not served; give how many were, and the refusal."""
    with appliance.client("developer") as developer:
        for number in range(MAX_REQUESTS):
            response = developer.post("/v1/completions", json=ASKED)
            if response.status_code != 200:
                return number, response
    raise AssertionError(f"{MAX_REQUESTS} requests were served without space for their records")


def _assert_shut(appliance: LiveAppliance, refusal: httpx.Response) -> None:
    assert refusal.status_code == 503, refusal.text
    assert refusal.json()["error"]["code"] == "log_unavailable"
    assert int(refusal.headers["retry-after"]) > 0
    ready = httpx.get(f"{appliance.url}/readyz", trust_env=False)
    assert ready.status_code == 503
    assert "log_unavailable" in [obstacle["code"] for obstacle in ready.json()["obstacles"]]
    assert httpx.get(f"{appliance.url}/livez", trust_env=False).status_code == 200
    with appliance.client("developer") as developer:
        assert developer.post("/v1/completions", json=ASKED).json()["error"]["code"] == "log_unavailable"
        streamed = developer.post("/v1/chat/completions", json={**ASKED, "stream": True, "prompt": None})
        assert streamed.status_code in (400, 503)
    with appliance.client("auditor") as auditor:
        assert auditor.get("/audit/entries").status_code == 503, "an unrecorded read of the log"


def _assert_verifies(state_dir: Path) -> int:
    vkey = (state_dir / "log" / "verifier.vkey").read_text().strip()
    report = verify_log(state_dir / "log" / "audit.db", [LogVerifier.from_vkey(vkey)], PAIRING)
    assert report.ok, [str(finding) for finding in report.findings]
    return report.num_leaves


@pytest.mark.root
def test_a_disk_that_fills_up_under_load(tmp_path: Path):
    """The log's disk fills to the last byte: 503, not ready, an ordered stop; with space again a restart serves.

    Standard error lies on the same disk, so the operator's log cannot be written either.
    """
    starter = shutil.copytree(REPOSITORY / "models/starter/weights", tmp_path / "starter")
    settings = {"CLOISTER_STARTER_DIR": str(starter), "CLOISTER_MIN_FREE_BYTES": "0"}
    with small_disk(tmp_path / "disk", TMPFS_BYTES) as disk:
        state_dir = disk / "state"
        appliance = start_appliance(state_dir, **settings)
        try:
            fill(disk / "ballast", ROOM_BYTES)
            num_served, refusal = _ask_until_refused(appliance)
            _assert_shut(appliance, refusal)
        finally:
            stopped = appliance.stop()
        assert stopped == 1, "the stop is in order, and says that the log does not hold it"
        (disk / "ballast").unlink()
        size = _assert_verifies(state_dir)
        assert num_served, "the disk was full too early to prove anything"
        assert size >= 2 * num_served
        with running_appliance(state_dir, **settings) as again, again.client("developer") as developer:
            assert developer.post("/v1/completions", json=ASKED).status_code == 200
        assert _assert_verifies(state_dir) > size


def test_less_space_than_the_floor_is_refused_before_the_disk_is_full(tmp_path: Path):
    """Below CLOISTER_MIN_FREE_BYTES nothing is written any more: the start says so by name, and the log stays whole."""
    starter = shutil.copytree(REPOSITORY / "models/starter/weights", tmp_path / "starter")
    settings = {"CLOISTER_STARTER_DIR": str(starter)}
    state_dir = tmp_path / "state"
    assert start_appliance(state_dir, **settings).stop() == 0
    size = _assert_verifies(state_dir)
    floor = str(shutil.disk_usage(tmp_path).total * 2)
    with pytest.raises(AssertionError, match="did not start") as failure:
        start_appliance(state_dir, **settings, CLOISTER_MIN_FREE_BYTES=floor)
    assert "Traceback" not in str(failure.value)
    assert "free" in str(failure.value)
    assert _assert_verifies(state_dir) == size
    with running_appliance(state_dir, **settings) as again, again.client("developer") as developer:
        assert developer.post("/v1/completions", json=ASKED).status_code == 200
