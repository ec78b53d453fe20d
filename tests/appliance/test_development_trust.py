"""Development trust is never a fallback: without the flag it is neither made nor served."""

from __future__ import annotations

import datetime as dt
import os
import secrets
import subprocess
import sys
from pathlib import Path

from live_appliance import free_port

from appliance.settings import Settings
from appliance.state.development import provision_development
from appliance.state.layout import StateLayout


def _serve(state_dir: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLOISTER_")}
    return subprocess.run(
        [Path(sys.executable).parent / "cloister", "serve"],
        env={**environment, "CLOISTER_STATE_DIR": str(state_dir), "CLOISTER_PORT": str(free_port())},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_mistyped_state_folder_starts_nothing(tmp_path: Path):
    """No state, no appliance: nothing is made, and the message says what to set."""
    refused = _serve(tmp_path / "vra")
    assert refused.returncode == 1
    assert "CLOISTER_STATE_DIR" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "vra").exists()


def test_a_development_state_is_not_served_without_the_flag(tmp_path: Path):
    """Whoever serves development trust says so."""
    layout = StateLayout(tmp_path / "state")
    provision_development(layout, Settings().starter_dir, dt.datetime.now(dt.UTC), secrets.token_bytes)
    refused = _serve(layout.root)
    assert refused.returncode == 1
    assert "--development" in refused.stderr
    assert "Traceback" not in refused.stderr
