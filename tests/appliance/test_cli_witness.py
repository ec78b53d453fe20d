"""`cloister audit witness`: a cosignature carried by files, typed on both machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from audit_log_builder import SIGNER, build_log, make_event, request_events
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner, Result

from appliance.cli.audit import app
from appliance.state.files import make_folder, write_private
from appliance.state.layout import StateLayout
from audit.checkpoint import open_checkpoint
from audit.cosignature import CosignatureVerifier, cosignatures_of

EVENTS = request_events(12)


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two state folders: `typed("log" | "witness", ...)` runs the command on one of them."""
    folders = {name: StateLayout(tmp_path / name) for name in ("log", "witness")}
    make_folder(folders["log"].log)
    make_folder(folders["witness"].root)
    key = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(folders["log"].log_signing_key, pem)
    write_private(folders["log"].log_vkey, f"{SIGNER.verifier.vkey}\n".encode())
    build_log(folders["log"].audit_db, EVENTS[:7], [3, 4])

    def typed(machine: str, *arguments: str | Path) -> Result:
        monkeypatch.setenv("CLOISTER_STATE_DIR", str(folders[machine].root))
        logs = json.dumps([SIGNER.verifier.vkey] if machine == "witness" else [])
        monkeypatch.setenv("CLOISTER_WITNESS_LOGS", logs)
        return CliRunner().invoke(app, ["witness", *map(str, arguments)])

    return typed, folders


def test_a_cosignature_goes_there_and_back_by_files(machines, tmp_path: Path) -> None:
    """Key, request, cosignature, kept note; the next request begins where the kept one ended."""
    typed, folders = machines
    vkey = tmp_path / "witness.vkey"
    made = typed("witness", "init", "w.example/one")
    assert made.exit_code == 0, made.stderr
    vkey.write_text(made.stdout)
    assert folders["witness"].witness_key.stat().st_mode & 0o777 == 0o600
    assert typed("witness", "init", "w.example/one").exit_code == 1

    request, note = tmp_path / "head.submission", tmp_path / "cosigned.note"
    assert typed("log", "request", request, "--witness", vkey).exit_code == 0
    assert request.read_text().startswith("old 0\n\n")
    said = typed("witness", "cosign", request, note)
    assert said.exit_code == 0, said.stderr
    kept = typed("log", "keep", note, "--witness", vkey)
    assert kept.exit_code == 0, kept.stderr
    [file] = folders["log"].anchors.glob("*.checkpoint")
    verifier = CosignatureVerifier.from_vkey(vkey.read_text())
    assert cosignatures_of(file.read_text(), [verifier])
    assert open_checkpoint(file.read_text(), [SIGNER.verifier]).size == 7

    again = tmp_path / "again.submission"
    assert typed("log", "request", again, "--witness", vkey).exit_code == 0
    assert again.read_text().startswith("old 7\n\n")
    assert typed("log", "request", again, "--witness", vkey).exit_code == 2, "a file is never replaced"
    rejected = typed("witness", "cosign", request, tmp_path / "more.note")
    assert (rejected.exit_code, "--old-size 7" in rejected.stderr) == (1, True)


def test_a_fork_and_a_rollback_are_4(machines, tmp_path: Path) -> None:
    """By the witness, by the log's own kept note, and by what came back from somebody else."""
    typed, folders = machines
    vkey = tmp_path / "witness.vkey"
    vkey.write_text(typed("witness", "init", "w.example/one").stdout)
    request, note = tmp_path / "head.submission", tmp_path / "cosigned.note"
    typed("log", "request", request, "--witness", vkey)
    typed("witness", "cosign", request, note)
    typed("log", "keep", note, "--witness", vkey)

    folders["log"].audit_db.unlink()
    build_log(folders["log"].audit_db, EVENTS[:3], [3])
    rolled_back = typed("log", "request", tmp_path / "back.submission", "--witness", vkey)
    assert (rolled_back.exit_code, "cosigned 7 entries, this log has 3" in rolled_back.stderr) == (4, True)

    folders["log"].audit_db.unlink()
    build_log(folders["log"].audit_db, [make_event(99, "request:denied"), *EVENTS[1:12]], [12])
    forked = tmp_path / "forked.submission"
    assert typed("log", "request", forked, "--witness", vkey).exit_code == 0
    assert typed("witness", "cosign", forked, tmp_path / "f.note").exit_code == 4
    assert len(list((folders["witness"].witness / "evidence").rglob("*.submission"))) == 1

    (tmp_path / "unsigned").write_text(note.read_text().rpartition("— w.example")[0])
    bare = typed("log", "keep", tmp_path / "unsigned", "--witness", vkey)
    assert (bare.exit_code, "not cosigned by w.example/one" in bare.stderr) == (4, True)


def test_a_witness_without_a_key_says_how_to_make_one(machines, tmp_path: Path) -> None:
    """By the command, and a name that signed-note does not allow is refused."""
    typed, _ = machines
    (tmp_path / "any").write_text("old 0\n\nx\n")
    said = typed("witness", "cosign", tmp_path / "any", tmp_path / "out")
    assert (said.exit_code, "cloister audit witness init NAME" in said.stderr) == (1, True)
    assert typed("witness", "init", "a name").exit_code == 1
