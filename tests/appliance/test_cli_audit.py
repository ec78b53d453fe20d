"""`cloister audit verify`, typed: what it says when all is well, and one line when a file handed to it is not."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
from audit_log_builder import OTHER_SIGNER, SIGNER, build_log, request_events
from typer.testing import CliRunner, Result

from appliance.cli.audit import app
from appliance.cli.audit.evidence_files import MAX_EVIDENCE_BYTES
from audit.checkpoint import LogVerifier
from audit.export import export_log
from audit.verify import CUT_TAIL_NOTE

VERIFIED = "VERIFIED: nothing contradicts anything"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound log, its key beside it, and a checkpoint that was kept."""
    monkeypatch.setenv("CLOISTER_STATE_DIR", str(tmp_path / "state"))
    path = tmp_path / "audit.db"
    build_log(path, request_events(4), [3, 4])
    (tmp_path / "vkey").write_text(SIGNER.verifier.vkey + "\n")
    raw = sqlite3.connect(path)
    [(note,)] = raw.execute("SELECT note FROM checkpoint WHERE size = 7").fetchall()
    raw.close()
    (tmp_path / "kept").write_text(note)
    return path


def typed(log: Path, *arguments: str | Path, vkey: Path | None = None) -> Result:
    """Run the command on the log."""
    key = vkey or log.with_name("vkey")
    return CliRunner().invoke(app, ["verify", str(log), "--vkey", str(key), *map(str, arguments)])


def test_without_a_kept_checkpoint_the_verdict_says_what_it_cannot_see(log: Path) -> None:
    """A cut tail verifies too; only a checkpoint from elsewhere takes the note away."""
    said = typed(log)
    assert (said.exit_code, said.output.splitlines()[-2:]) == (0, [f"  note: {CUT_TAIL_NOTE}", VERIFIED])
    assert CUT_TAIL_NOTE in json.loads(typed(log, "--json").output)["notes"]
    kept = typed(log, "--checkpoint", log.with_name("kept"))
    assert kept.exit_code == 0
    assert VERIFIED in kept.output
    assert CUT_TAIL_NOTE not in kept.output
    assert json.loads(typed(log, "--checkpoint", log.with_name("kept"), "--json").output)["notes"] == []


def test_an_exported_folder_says_so_too_and_where_its_key_came_from(log: Path, tmp_path: Path) -> None:
    """For people and for programs."""
    export_log(log, tmp_path / "out", SIGNER.verifier)
    said = CliRunner().invoke(app, ["verify", str(tmp_path / "out"), "--json"])
    assert said.exit_code == 0
    notes = json.loads(said.output)["notes"]
    assert notes[0] == CUT_TAIL_NOTE
    assert str(tmp_path / "out" / "log.vkey") in notes[1]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"no key", b"a+b+c", b"\0" * 100])
def test_a_bad_key_is_one_line_that_names_the_file(log: Path, content: bytes) -> None:
    """Not text, or no key: never a traceback."""
    bad = log.with_name("bad")
    bad.write_bytes(content)
    assert_refused(typed(log, vkey=bad), 1, bad)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"no note", b"a\n7\nb\n\n\xe2\x80\x94 x y\n"])
def test_a_bad_checkpoint_is_one_line_that_names_the_file(log: Path, content: bytes) -> None:
    """The auditor's own evidence is wrong: which file, and no word about the log."""
    bad = log.with_name("bad")
    bad.write_bytes(content)
    assert_refused(typed(log, "--checkpoint", log.with_name("kept"), "--checkpoint", bad), 4, bad)


@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_evidence_that_never_ends_is_refused(log: Path, name: str) -> None:
    """A pipe nobody writes to and a device without an end: no file, so no evidence, and nobody waits."""
    path = log.parent / name
    if name == "pipe":
        os.mkfifo(path)
    receipt = f"7:{'0' * 64}"
    checking = ["check-receipt", receipt, "--proof", str(path), "--vkey", str(log.with_name("vkey"))]
    for said in (typed(log, "--checkpoint", path), CliRunner().invoke(app, checking)):
        assert said.exit_code == 2
        assert str(path) in said.output


@pytest.mark.parametrize("option", ["--checkpoint", "--vkey"])
def test_evidence_longer_than_any_is_refused(log: Path, option: str) -> None:
    """Read no further than a key or a checkpoint can reach."""
    long = log.with_name("long")
    long.write_bytes(b"a" * (MAX_EVIDENCE_BYTES + 1))
    said = typed(log, vkey=long) if option == "--vkey" else typed(log, option, long)
    assert said.exit_code == 4
    assert f"{long}: longer" in said.output


def test_a_checkpoint_of_another_key_is_one_line_that_names_the_file(log: Path) -> None:
    """Signed by nobody whose key was given."""
    other = log.with_name("other.vkey")
    other.write_text(LogVerifier(SIGNER.name, OTHER_SIGNER.verifier.public_key).vkey)
    assert_refused(typed(log, "--checkpoint", log.with_name("kept"), vkey=other), 4, log.with_name("kept"))


def test_a_log_that_the_machine_refuses_is_not_called_unsound(log: Path) -> None:
    """Could not be done, which is another exit code than unsound."""
    log.with_name(log.name + "-shm").symlink_to("/nonexistent/folder/file")
    log.with_name(log.name + "-wal").write_bytes(b"\0" * 32)
    refused = typed(log)
    assert_refused(refused, 1, log)
    assert "VERIFIED" not in refused.output


def assert_refused(said: Result, exit_code: int, named: Path) -> None:
    """One line on standard error, the code, the culprit."""
    assert said.exit_code == exit_code, said.output
    assert isinstance(said.exception, SystemExit)
    [line] = said.output.splitlines()
    assert line.startswith("cloister: ")
    assert str(named) in line
