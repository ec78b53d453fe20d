"""`make serve`, the first of a newcomer's two commands: it serves, and Ctrl-C in its terminal stops in order."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from live_appliance import REPOSITORY, start_appliance

from audit.reader import AuditReader


@pytest.fixture
def make() -> str:
    """The `make` that would start the appliance without installing anything."""
    program = shutil.which("make")
    if program is None:
        pytest.skip("there is no make on this machine")
    if Path(sys.prefix).resolve() != (REPOSITORY / ".venv").resolve():
        pytest.skip("the suite does not run from the .venv that make made")
    asked = subprocess.run([program, "--question", ".venv/.serve"], cwd=REPOSITORY, capture_output=True, check=False)
    if asked.returncode != 0:
        pytest.skip(".venv/.serve is not up to date: `make serve` would install first")
    return program


def test_make_serve_serves_until_ctrl_c(make: str, tmp_path: Path):
    """It takes state folder and port from the environment, answers, and its last entry is `appliance:stopped`."""
    state_dir = tmp_path / "state"
    appliance = start_appliance(state_dir, (make, "--silent", "serve"), own_group=True)
    try:
        assert appliance.url in appliance.banner
        assert httpx.get(f"{appliance.url}/readyz", trust_env=False).status_code == 200
        with appliance.client("developer") as developer:
            body = {"model": "starter", "prompt": "The pump", "max_tokens": 4}
            assert developer.post("/v1/completions", json=body).status_code == 200
    finally:
        os.killpg(appliance.process.pid, signal.SIGINT)  # as a terminal does: make and what it started
        appliance.process.wait(60)
    with AuditReader(state_dir / "log" / "audit.db") as reader:
        assert [entry.leaf.event.kind for entry in reader.tail(1)] == ["appliance:stopped"]
