"""The privacy officer's walk of docs/privacy.md, every command as it stands there, on an appliance of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_appliance import LiveAppliance, running_appliance, start_appliance

from appliance.cli.audit.evidence_files import read_vkey
from appliance.keeping.certificate import check_certificate
from appliance.keeping.retention_profiles import read_profiles

STEP = "echo --- block\n"


@pytest.fixture
def page(repository: Path) -> str:
    """The documented walk."""
    return (repository / "docs/privacy.md").read_text()


@pytest.fixture
def walker(tmp_path: Path, repository: Path, page: str) -> Iterator[tuple[LiveAppliance, Path, list[str]]]:
    """An appliance whose policies are a copy with the overlay that the page's first block writes."""
    overlay, *blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    home = tmp_path / "home"
    (home / "exports").mkdir(parents=True)
    shutil.copytree(repository / "policies", home / "policies", ignore=shutil.ignore_patterns("__pycache__"))
    (home / ".venv").symlink_to(repository / ".venv")
    subprocess.run(["bash", "-euc", overlay], cwd=home, check=True)
    settings = {"PYTHONPATH": os.pathsep.join(filter(None, (str(home), os.environ.get("PYTHONPATH"))))}
    exports = str(home / "exports")
    with running_appliance(tmp_path / "state", CLOISTER_EXPORT_DIR=exports, **settings) as appliance:
        yield appliance, home, blocks


@pytest.mark.timeout(900)
def test_every_command_of_the_walk_does_what_the_page_says(walker, repository: Path):
    """The blocks run in order in one shell, where a command that fails ends it; the log tells the same story."""
    appliance, home, blocks = walker
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CLOISTER_")},
        "CLOISTER_EXPORT_DIR": str(home / "exports"),
        "CLOISTER_STATE_DIR": str(appliance.state_dir),
        "CLOISTER_URL": appliance.url,
        "DEVELOPER_KEY": appliance.keys["developer"],
        "PYTHONPATH": str(repository / "tests/guard"),
    }
    script = "".join(block + STEP for block in blocks)
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"exec 2>&1\n{script}"],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = ran.stdout.split("--- block\n")
    _, checked, shown, again, held, released, erased, after, retention, lowered, pruned, _ = said
    assert checked.startswith("MATCH: ")
    assert "this text is not the prompt" in checked
    assert '["Once upon a time"]' in shown
    assert "shown_before" in again
    assert "under_hold" in held
    assert "released hold" in released
    assert erased.count("ERASED: subject developer of tenant development") == 2
    assert "SubjectErased" in after
    assert "VERIFIED: nothing contradicts anything" in after
    assert "entries stay 183 days, sealed contents 0 days, at least" in retention
    assert "CLOISTER_RETENTION_PROFILES='[\"ai-act\"]'" in lowered
    assert "pruned: content below" in pruned
    assert "VERIFIED: nothing contradicts anything" in pruned
    verifier = read_vkey(appliance.state_dir / "log" / "verifier.vkey")
    assert check_certificate((home / "certificate.json").read_bytes(), verifier).subject == "developer"
    for path in (appliance.state_dir / "log").glob("*"):
        assert b"Once upon a time" not in path.read_bytes(), path


def test_the_table_of_profiles_says_what_the_data_says(page: str):
    """Days of both clocks, for every profile there is."""
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", page, re.MULTILINE))
    assert rows == {
        name: f"{one.leaf_days} days{f', the newest {one.at_hand_days} at hand' if one.at_hand_days else ''} | "
        f"{one.content_days} days"
        for name, one in read_profiles().items()
    }


@pytest.mark.timeout(900)
def test_a_lowered_floor_stops_the_start_until_two_people_approved_it(tmp_path: Path):
    """The whole way: a longer floor, a start that is refused, two people, a start that states the exception."""
    state = tmp_path / "state"
    longer, shorter = '["ai-act", "pci"]', '["ai-act"]'
    with running_appliance(state, CLOISTER_RETENTION_PROFILES=longer):
        pass
    with pytest.raises(AssertionError, match="CLOISTER_RETENTION_PROFILES: ai-act keeps entries 183"):
        start_appliance(state, CLOISTER_RETENTION_PROFILES=shorter)
    with running_appliance(state, CLOISTER_RETENTION_PROFILES=longer) as appliance:
        with appliance.client("operator") as operator:
            body = {"profiles": ["ai-act"], "reason": "no more card data"}
            proposal = operator.post("/audit/retention/lower", json=body).json()["proposal"]
        with appliance.client("privacy") as officer:
            assert officer.post(f"/audit/retention/{proposal}/approve").status_code == 200
    with running_appliance(state, CLOISTER_RETENTION_PROFILES=shorter) as appliance, appliance.client("auditor") as one:
        rows = one.get("/audit/entries", params={"kind": "retention:set", "order": "desc", "limit": 1}).json()["data"]
        assert rows[0]["entry"]["facts"]["exception_index"] > proposal
        assert one.get("/audit/retention").json()["floor"]["leaf_days"] == 183
