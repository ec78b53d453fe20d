"""The auditor's walk of docs/evidence.md, every command as it stands there, on a running appliance."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from live_appliance import LiveAppliance

from audit.evidence.index import PackIndex

CLOISTER = Path(sys.executable).parent / "cloister"


@pytest.fixture
def page(repository: Path) -> str:
    """The documented walk."""
    return (repository / "docs/evidence.md").read_text()


def environment(live: LiveAppliance, key: str | None = None) -> dict[str, str]:
    """What a person at the appliance's machine has."""
    given = {"CLOISTER_API_KEY": live.keys[key]} if key else {}
    return {**os.environ, "CLOISTER_STATE_DIR": str(live.state_dir), "CLOISTER_URL": live.url, **given}


def run(live: LiveAppliance, *arguments: str | Path, key: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `cloister`."""
    command = [CLOISTER, *map(str, arguments)]
    return subprocess.run(command, env=environment(live, key), capture_output=True, text=True, check=False)


def records_of(live: LiveAppliance, kind: str) -> list[dict]:
    """Entries of a kind, oldest first."""
    with live.client("auditor") as auditor:
        rows = auditor.get("/audit/entries", params={"kind": kind, "limit": 1000}).json()["data"]
    return [row["entry"] for row in rows]


def test_every_command_of_the_walk_does_what_the_page_says(live: LiveAppliance, page: str, repository, tmp_path: Path):
    """The blocks run in order in one shell, where a command that fails ends it."""
    with live.client("developer") as developer:
        chat = {"model": "starter", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        assert developer.post("/v1/chat/completions", json=chat).is_success
        denied = developer.post("/v1/chat/completions", json=chat, headers={"x-cloister-label": "4"})
        assert denied.status_code == 403
    (tmp_path / ".venv").symlink_to(repository / ".venv")
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    script = "".join(f"{block}echo --- block\n" for block in blocks)
    ran = subprocess.run(
        ["bash", "-euc", script], env=environment(live), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    _, made, checked, _, again, verified, _ = ran.stdout.split("--- block\n")
    assert "records" in made
    assert checked.endswith("PASS\n")
    assert "a cut end would not show" in checked
    assert again.endswith("PASS\n")
    assert "a cut end would not show" not in again
    assert verified.endswith("VERIFIED: nothing contradicts anything\n")
    index = PackIndex.from_bytes((tmp_path / "pack" / "index.json").read_bytes())
    assert index.sample.seed == "a number of my own"
    assert index.absent == ()
    for name in ("policy/000001/files/base/00-invariants.cedar", "models/starter/model.sig", "trust/root.1.json"):
        assert name in index.files, sorted(index.files)
    made_entries = records_of(live, "evidence:made")
    assert made_entries[-2]["facts"]["head_size"] == index.head_size
    assert records_of(live, "evidence:started")[-2]["index"] == index.started_index


def test_every_file_of_a_pack_stands_on_the_page(live: LiveAppliance, page: str, tmp_path: Path):
    """The table names every file or its folder, and nothing in the pack is a secret of the state."""
    assert run(live, "audit", "evidence", tmp_path / "pack").returncode == 0
    named = set(re.findall(r"`([\w./-]+)`", page)) | {"log.vkey"}
    files = [path for path in (tmp_path / "pack").rglob("*") if path.is_file()]
    for path in files:
        name = path.relative_to(tmp_path / "pack").as_posix()
        assert name in named or f"{name.split('/')[0]}/" in named, name
    secrets = [path.read_bytes() for path in (live.state_dir / "secrets").iterdir() if path.name != "ids.json"]
    secrets += [key.encode() for key in live.keys.values()]
    secrets.append((live.state_dir / "log" / "signing.key").read_bytes())
    for path in files:
        content = path.read_bytes()
        assert not any(secret in content for secret in secrets), path


@pytest.mark.parametrize("role", ["developer", "operator", "privacy"])
def test_only_an_auditor_may_make_one(live: LiveAppliance, tmp_path: Path, role: str):
    """Denied and recorded before anything is read; no folder comes to be."""
    before = len(records_of(live, "evidence:started"))
    said = run(live, "audit", "evidence", tmp_path / "pack", key=role)
    assert said.returncode == 3
    assert "403" in said.stderr
    assert list(tmp_path.iterdir()) == []
    assert len(records_of(live, "evidence:started")) == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--from", "yesterday"], 2, "neither an index nor a time"),
        (["--from", "1969-01-01"], 2, "before 1970"),
        (["--sample", "20000"], 2, "10000"),
        (["--from", "5", "--to", "2026-13-01"], 2, "neither an index nor a time"),
    ],
)
def test_a_bound_that_is_none_is_refused(live: LiveAppliance, tmp_path: Path, arguments, code, said):
    """One line, before anything is asked of the appliance."""
    ended = run(live, "audit", "evidence", tmp_path / "pack", *arguments)
    assert ended.returncode == code
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_range_by_index_and_by_time(live: LiveAppliance, tmp_path: Path):
    """Mixed bounds hold both."""
    assert run(live, "audit", "evidence", tmp_path / "pack", "--from", "2", "--to", "2100-01-01").returncode == 0
    first, *_ = (tmp_path / "pack" / "records.jsonl").read_bytes().splitlines()
    assert json.loads(first)["index"] == 2


def test_an_existing_folder_is_not_touched(live: LiveAppliance, tmp_path: Path):
    """Nor asked about."""
    before = len(records_of(live, "evidence:started"))
    assert run(live, "audit", "evidence", tmp_path).returncode == 1
    assert len(records_of(live, "evidence:started")) == before


def test_ctrl_c_leaves_no_folder(live: LiveAppliance, tmp_path: Path):
    """Wherever it comes: no draft, no folder, and the record that a pack was begun."""
    before = len(records_of(live, "evidence:started"))
    building = subprocess.Popen(
        [CLOISTER, "audit", "evidence", str(tmp_path / "pack")], env=environment(live), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline and building.poll() is None:
        os.sched_yield()
    building.send_signal(signal.SIGINT)
    code = building.wait(60)
    assert (code != 0) == (not (tmp_path / "pack").exists())
    assert [path.name for path in tmp_path.iterdir()] in ([], ["pack"])
    assert len(records_of(live, "evidence:started")) == before + 1


MADE = {"index_sha256": "0" * 64, "head_size": 1, "head_root": "0" * 64, "num_records": 0, "num_files": 0}


def test_only_a_pack_that_was_allowed_is_recorded_once_and_with_a_head_of_this_log(live: LiveAppliance):
    """Another's, an unknown one, a head that was never signed, one from before, a second time."""
    with live.client("auditor") as auditor:
        started = auditor.post("/audit/evidence", json={}).json()
        path = f"/audit/evidence/{started['id']}/made"
        head = auditor.get("/audit/checkpoint").text.split("\n")
        root = base64.b64decode(head[2]).hex()
        good = {**MADE, "head_size": int(head[1]), "head_root": root}
        refused = [
            (f"/audit/evidence/{'x' * 8}/made", good, 404, "evidence_not_found"),
            (path, MADE, 400, "unknown_head"),
            (path, {**good, "head_root": "f" * 64}, 400, "unknown_head"),
            (path, {**good, "head_size": 2**53 - 1}, 400, "unknown_head"),
            (path, {**good, "index_sha256": "F" * 64}, 400, "bad_value"),
            (path, {**good, "more": 1}, 400, "unknown_parameter"),
        ]
        before = len(records_of(live, "evidence:made"))
        for where, body, status, code in refused:
            answer = auditor.post(where, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert len(records_of(live, "evidence:made")) == before
        sealed = auditor.post(path, json=good)
        assert sealed.status_code == 200
        assert json.loads(sealed.json()["leaf"])["facts"]["head_root"] == root
        again = auditor.post(path, json=good)
        assert (again.status_code, again.json()["error"]["code"]) == (400, "evidence_recorded")
        assert len(records_of(live, "evidence:made")) == before + 1


@pytest.mark.parametrize("body", [{"from_index": -1}, {"sample_size": 10_001}, {"seed": ""}, {"until_us": 2**53}])
def test_an_order_out_of_bounds_is_refused_by_its_field(live: LiveAppliance, body: dict):
    """By name, and not begun."""
    before = len(records_of(live, "evidence:started"))
    with live.client("auditor") as auditor:
        answer = auditor.post("/audit/evidence", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(body)))
    assert len(records_of(live, "evidence:started")) == before
