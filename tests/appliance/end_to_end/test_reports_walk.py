"""docs/reports.md, typed as it stands: every command of the auditor's walk against a running appliance."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from live_appliance import REPOSITORY, LiveAppliance, running_appliance

from appliance.reports.registry import REPORTS
from appliance.reports.report_file import check_report
from appliance.state.layout import StateLayout
from audit.checkpoint import LogVerifier

BLOCKS = re.findall(r"```console\n(.*?)```", (REPOSITORY / "docs/reports.md").read_text(), re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory):
    """One with something to examine."""
    folder = tmp_path_factory.mktemp("walk")
    with running_appliance(folder / "state") as appliance:
        with appliance.client("developer") as developer:
            body = {"model": "starter", "prompt": "x", "max_tokens": 2}
            assert developer.post("/v1/completions", json=body).status_code == 200
            assert developer.get("/audit/entries").status_code == 403
        (folder / "notes.txt").write_text("nothing out of the ordinary\n")
        (folder / "auditor.vkey").write_bytes(StateLayout(appliance.state_dir).log_vkey.read_bytes())
        yield appliance


def typed(appliance: LiveAppliance, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `cloister` as a shell would, in the folder of the auditor's own files."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLOISTER_")}
    return subprocess.run(
        [str(Path(sys.executable).parent / "cloister"), *words],
        env={**environment, "CLOISTER_URL": appliance.url, "CLOISTER_STATE_DIR": str(appliance.state_dir)},
        cwd=appliance.state_dir.parent,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_walk_of_the_page_works_as_it_is_written(appliance: LiveAppliance):
    """In its order, each command ends well and says something."""
    assert len(COMMANDS) > 10
    said = {}
    for command in COMMANDS:
        words = shlex.split(command)
        assert words.pop(0) == ".venv/bin/cloister", command
        done = typed(appliance, *words)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        said[command] = done.stdout
    denied = next(text for command, text in said.items() if "--newest" in command)
    assert "request:denied" in denied
    assert all("PROVEN: run at entry" in text for command, text in said.items() if "report run" in command)
    assert "R1 Completeness, version 1" in next(text for command, text in said.items() if "report check" in command)
    counted = next(text for command, text in said.items() if command.endswith("--by kind"))
    assert re.search(r"request:completed +[1-9]", counted)


def test_a_kept_report_that_was_altered_ends_with_4(appliance: LiveAppliance):
    """And says why in one line."""
    folder = appliance.state_dir.parent
    run = typed(appliance, "audit", "report", "run", "R3", "--out", "kept.json")
    assert run.returncode == 0, run.stderr
    assert typed(appliance, "audit", "report", "run", "R3", "--out", "kept.json").returncode == 1, "never overwritten"
    file = json.loads((folder / "kept.json").read_text())
    file["document"]["result"]["num_entries"] -= 1
    (folder / "altered.json").write_text(json.dumps(file))
    checked = typed(appliance, "audit", "report", "check", "altered.json", "--vkey", "auditor.vkey")
    assert (checked.returncode, len(checked.stderr.splitlines())) == (4, 1)
    assert "not the one that the log has the digest of" in checked.stderr


def test_a_filter_that_means_nothing_points_at_its_character(appliance: LiveAppliance):
    """On the command line as over HTTP."""
    done = typed(appliance, "audit", "search", "kind=a:b and actr=ada")
    assert done.returncode == 1
    assert "bad_filter: at character 14: expected a field" in done.stderr


def test_a_search_goes_on_over_pages_that_are_short(appliance: LiveAppliance):
    """A condition without an index, for which a page may give up early: the command asks on."""
    done = typed(appliance, "audit", "search", "role=auditor and not kind=report:made", "--limit", "3")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3)


def test_every_report_runs_against_a_real_appliance(appliance: LiveAppliance):
    """Each by its number, and the log has both of its records."""
    key = LogVerifier.from_vkey(StateLayout(appliance.state_dir).log_vkey.read_text().strip())
    with appliance.client("auditor") as auditor:
        for report in REPORTS:
            checked = check_report(auditor.post(f"/audit/reports/{report}", json={}).content, [key])
            assert checked.document["query"]["report"] == report
        answer = auditor.get("/audit/aggregates", params={"by": "kind", "filter": "kind in (report:run, report:made)"})
    counts = {group["key"]["kind"]: group["count"] for group in answer.json()["groups"]}
    assert counts["report:run"] == counts["report:made"] >= len(REPORTS)
