"""`cloister audit verify` with what was kept elsewhere, typed as an auditor types it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from audit_log_builder import OTHER_SIGNER, SIGNER, build_log, make_event, request_events
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from appliance.cli.audit import app
from audit.anchoring.directory import MARKER, DirectorySink
from audit.anchoring.head import SignedHead
from audit.cosignature import Cosigner, add_lines
from audit.export import export_log
from audit.reader import AuditReader

EVENTS = request_events(12)
WITNESS = Cosigner("w.example/one", Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log, its key, a medium with two heads, and a cosigned one."""
    monkeypatch.setenv("CLOISTER_STATE_DIR", str(tmp_path / "state"))
    path = tmp_path / "audit.db"
    build_log(path, EVENTS, [3, 4, 16])
    (tmp_path / "vkey").write_text(SIGNER.verifier.vkey + "\n")
    (tmp_path / "witness.vkey").write_text(WITNESS.verifier.vkey + "\n")
    medium = tmp_path / "medium"
    medium.mkdir()
    (medium / MARKER).touch()
    (tmp_path / "cosigned").mkdir()
    with AuditReader(path) as reader:
        for size in (7, 23):
            signed = reader.checkpoint(size)
            DirectorySink(medium).anchor(SignedHead(signed.checkpoint, signed.note), time.monotonic() + 60)
        signed = reader.checkpoint(7)
    line = WITNESS.cosign(signed.checkpoint.text(), 1_763_964_000)
    (tmp_path / "cosigned" / "w.checkpoint").write_text(add_lines(signed.note, [line]))
    return path


def typed(log: Path, *arguments: str | Path) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["verify", str(log), "--vkey", str(log.with_name("vkey")), *map(str, arguments)])


def test_the_newest_anchor_finds_an_old_backup(log: Path, tmp_path: Path) -> None:
    """Sound by itself, 4 against the medium; the place and the anchor are named, for programs too."""
    assert typed(log, "--anchors", tmp_path / "medium").exit_code == 0
    old = tmp_path / "old.db"
    build_log(old, EVENTS[:7], [3, 4])
    assert typed(old).exit_code == 0
    said = typed(old, "--anchors", tmp_path / "medium", "--json")
    assert said.exit_code == 4
    [finding] = json.loads(said.stdout)["findings"]
    assert (finding["place"], finding["index"]) == ("log end", 7)
    assert "23.checkpoint" in finding["what"]


def test_a_fork_is_named_to_the_entry_when_the_other_copy_is_there(log: Path, tmp_path: Path) -> None:
    """As a file or as an export; the same copy is no finding, and a longer one of the same history shows the cut."""
    forged = tmp_path / "forged.db"
    build_log(forged, [*EVENTS[:9], make_event(99, "request:denied"), *EVENTS[10:]], [3, 4, 16])
    export_log(log, tmp_path / "pack", SIGNER.verifier)
    for other in (log, tmp_path / "pack"):
        said = typed(forged, "--other", other)
        assert said.exit_code == 4
        assert f"history 9 ({other}): entry 9 is the first that is not the same" in said.stdout
        assert typed(log, "--other", other).exit_code == 0
    old = tmp_path / "old.db"
    build_log(old, EVENTS[:7], [3, 4])
    said = typed(old, "--other", log)
    assert said.exit_code == 4
    assert "log end 7" in said.stdout
    assert "holds the same entries up to 7" in said.stdout


def test_a_quorum_is_asked_of_what_was_kept(log: Path, tmp_path: Path) -> None:
    """Met by the cosigned head, whose size is said; not met by the medium, where nobody cosigned."""
    witness = ("--witness", tmp_path / "witness.vkey", "--quorum", "1")
    said = typed(log, "--anchors", tmp_path / "cosigned", *witness)
    assert said.exit_code == 0
    assert "cosigned up to entry 6 (size 7) by w.example/one at 2025-11-24T06:00:00Z" in said.stdout
    said = typed(log, "--anchors", tmp_path / "medium", *witness)
    assert said.exit_code == 4
    assert "no known checkpoint is cosigned by 1 of 1 witnesses" in said.stdout


def test_evidence_that_is_none_is_refused_by_its_name(log: Path, tmp_path: Path) -> None:
    """A place without a head of this log, a quorum that nobody can meet, a log's key as a witness's."""
    (tmp_path / "empty").mkdir()
    said = typed(log, "--anchors", tmp_path / "empty")
    assert (said.exit_code, "empty holds no head of this log" in said.stderr) == (4, True)
    said = typed(log, "--anchors", tmp_path / "gone")
    assert (said.exit_code, "gone: No such file" in said.stderr) == (1, True)
    said = typed(log, "--witness", tmp_path / "witness.vkey", "--quorum", "2")
    assert (said.exit_code, "cannot be had from 1 witnesses" in said.stderr) == (1, True)
    said = typed(log, "--witness", tmp_path / "vkey")
    assert (said.exit_code, "no witness's key" in said.stderr) == (1, True)


def test_several_keys_of_one_log_are_taken(log: Path, tmp_path: Path) -> None:
    """A key that never signed changes nothing beside one that did; alone it verifies nothing."""
    (tmp_path / "other").write_text(OTHER_SIGNER.verifier.vkey)
    assert typed(log, "--vkey", tmp_path / "other").exit_code == 0
    alone = CliRunner().invoke(app, ["verify", str(log), "--vkey", str(tmp_path / "other")])
    assert alone.exit_code == 4
