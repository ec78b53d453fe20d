"""A real appliance cosigns another log's heads over a real connection, with a peer's key."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from anchored_logs import Tree, numbered
from audit_log_builder import SIGNER
from live_appliance import running_appliance
from typer.testing import CliRunner

from appliance.cli.audit import app
from audit.anchoring.http_post import HttpAddress
from audit.anchoring.kept import KeptNotes
from audit.anchoring.witness_client import WitnessAddress, WitnessSink
from audit.cosignature import CosignatureVerifier, cosignatures_of
from audit.errors import AnchorAhead, AnchorFailed

ENOUGH_S = 60.0
TREE = Tree(numbered(40))
FORK = Tree(numbered(40, changed=5))


def test_a_second_appliance_is_a_witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosigned, found again after its restart, and a fork refused; a key of another role is told so."""
    state = tmp_path / "state"
    with running_appliance(state) as appliance:
        keys = appliance.keys
    monkeypatch.setenv("CLOISTER_STATE_DIR", str(state))
    made = CliRunner().invoke(app, ["witness", "init", "w.example/one"])
    assert made.exit_code == 0, made.stderr
    verifier = CosignatureVerifier.from_vkey(made.stdout)
    (tmp_path / "kept").mkdir()

    def anchor(url: str, role: str, tree: Tree, size: int) -> int:
        key = tmp_path / f"{role}.key"
        key.touch(0o600)
        key.write_text(keys[role])
        sink = WitnessSink(
            WitnessAddress(HttpAddress.from_url(url), verifier, key_file=key),
            tree.prove,
            KeptNotes(tmp_path / "kept", [verifier]),
        )
        return sink.anchor(tree.head(size), time.monotonic() + ENOUGH_S).size

    logs = json.dumps([SIGNER.verifier.vkey])
    with running_appliance(state, CLOISTER_WITNESS_LOGS=logs) as appliance:
        assert anchor(appliance.url, "peer", TREE, 7) == 7
        with pytest.raises(AnchorFailed, match="answered 403"):
            anchor(appliance.url, "developer", TREE, 9)
    with running_appliance(state, CLOISTER_WITNESS_LOGS=logs) as appliance:
        assert anchor(appliance.url, "peer", TREE, 33) == 33
        with pytest.raises(AnchorAhead, match="does not extend"):
            anchor(appliance.url, "peer", FORK, 40)
        with appliance.client("auditor") as auditor:
            rows = auditor.get("/audit/entries", params={"subject": SIGNER.name}).json()["data"]
    assert [row["entry"]["kind"] for row in rows] == ["witness:enrolled", "witness:refused"]
    [note] = (tmp_path / "kept").glob("*.checkpoint")
    assert cosignatures_of(note.read_text(), [verifier])
