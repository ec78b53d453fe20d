"""The auditor's walk of docs/replay.md, every command as it stands there, on a running appliance."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_appliance import LiveAppliance, running_appliance

from appliance.replay.verdict import Why

OVERLAY = """@id("site.sealed") @log_level("encrypted")
permit (principal in Role::"developer", action == Action::"infer", resource) when { context.label >= 2 };
"""


@pytest.fixture
def page(repository: Path) -> str:
    """The documented walk."""
    return (repository / "docs/replay.md").read_text()


@pytest.fixture
def appliance(tmp_path: Path, repository: Path) -> Iterator[LiveAppliance]:
    """An appliance whose policy obliges to encrypted content for label 2, so that the page's last walk can open it."""
    shutil.copytree(repository / "policies", tmp_path / "policies", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "policies" / "site" / "sealed.cedar").write_text(OVERLAY)
    (tmp_path / ".venv").symlink_to(repository / ".venv")
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    with running_appliance(tmp_path / "state", PYTHONPATH=path) as running:
        yield running


def test_every_command_of_the_walk_does_what_the_page_says(appliance: LiveAppliance, page: str, tmp_path: Path):
    """The blocks run in order in one shell, where a command that fails ends it, and leave the replays in the log."""
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    marked = [f"{block}echo --- block\n" for block in blocks]
    environment = {
        **os.environ,
        "CLOISTER_STATE_DIR": str(appliance.state_dir),
        "CLOISTER_URL": appliance.url,
        "DEVELOPER_KEY": appliance.keys["developer"],
    }
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "".join(marked)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    _, plain, as_json, by_prompt, other, tail, sealed, _ = ran.stdout.split("--- block\n")
    assert plain.endswith(": REPRODUCED\n")
    assert json.loads(as_json)["verdict"] == "reproduced"
    assert by_prompt == plain
    assert "NOT REPRODUCIBLE HERE\n  prompt_mismatch" in other
    assert tail.count("replay:ended") >= 4
    assert sealed.endswith(plain)


def test_every_reason_stands_on_the_page(page: str):
    """The table of reasons holds exactly those that a verdict can have."""
    _, _, table = page.partition("| reason | means |\n")
    rows = [line for line in table.partition("\n\n")[0].splitlines() if line.startswith("| `")]
    assert {reason for row in rows for reason in re.findall(r"`(\w+)`", row.split("|")[1])} == set(Why)
