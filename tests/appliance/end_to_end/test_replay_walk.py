"""The auditor's walk of docs/replay.md, every command as it stands there, on a running appliance."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from live_appliance import LiveAppliance

from appliance.replay.verdict import Why


@pytest.fixture
def page(repository: Path) -> str:
    """The documented walk."""
    return (repository / "docs/replay.md").read_text()


def test_every_command_of_the_walk_does_what_the_page_says(live: LiveAppliance, page: str, repository, tmp_path: Path):
    """The blocks run in order in one shell, where a command that fails ends it, and end with the replays in the log."""
    (tmp_path / ".venv").symlink_to(repository / ".venv")
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    marked = [f"{block}echo --- block\n" for block in blocks]
    environment = {
        **os.environ,
        "CLOISTER_STATE_DIR": str(live.state_dir),
        "CLOISTER_URL": live.url,
        "DEVELOPER_KEY": live.keys["developer"],
    }
    ran = subprocess.run(
        ["bash", "-euc", "".join(marked)], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    _, plain, as_json, by_prompt, other, tail, _ = ran.stdout.split("--- block\n")
    assert plain.endswith(": REPRODUCED\n")
    assert json.loads(as_json)["verdict"] == "reproduced"
    assert by_prompt == plain
    assert "NOT REPRODUCIBLE HERE\n  prompt_mismatch" in other
    assert tail.count("replay:ended") >= 4


def test_every_reason_stands_on_the_page(page: str):
    """The table of reasons holds exactly those that a verdict can have."""
    _, _, table = page.partition("| reason | means |\n")
    rows = [line for line in table.partition("\n\n")[0].splitlines() if line.startswith("| `")]
    assert {reason for row in rows for reason in re.findall(r"`(\w+)`", row.split("|")[1])} == set(Why)
