"""A real appliance carries its heads to a medium and a collector, beside a witness that never answers."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path

import httpx
from audit_log_builder import attacker
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from live_appliance import running_appliance
from typer.testing import CliRunner

from appliance.cli.audit import app
from audit.anchoring.directory import MARKER
from audit.anchoring.evidence import read_anchors
from audit.checkpoint import LogVerifier
from audit.cosignature import Cosigner
from audit.verify import verify_log

ENOUGH_S = 60.0
ASKED = {"model": "starter", "prompt": "The pump", "max_tokens": 1}


def told_of_the_silent_witness(auditor: httpx.Client) -> str:
    """Read the log until it says that the witness fails; each read is a record, so the head moves meanwhile."""
    deadline = time.monotonic() + ENOUGH_S
    while time.monotonic() < deadline:
        failing = auditor.get("/audit/entries", params={"kind": "anchor:failing"}).json()["data"]
        if "witness:w.example/silent" in {row["entry"]["subject"] for row in failing}:
            return auditor.get("/metrics").text
    raise AssertionError("the log was never told")


def test_heads_leave_the_box_whatever_one_witness_does(tmp_path: Path) -> None:
    """Answers and the stop come in time; the last head lies on the medium; a cut tail is named by it."""
    medium, captured = tmp_path / "medium", tmp_path / "captured.log"
    medium.mkdir()
    (medium / MARKER).touch()
    witness = Cosigner("w.example/silent", Ed25519PrivateKey.generate()).verifier
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as collector,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        collector.bind(str(tmp_path / "log"))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = {
            "CLOISTER_ANCHOR_DIRECTORIES": json.dumps([str(medium)]),
            "CLOISTER_ANCHOR_SYSLOG": json.dumps([f"unix:{tmp_path / 'log'}"]),
            "CLOISTER_ANCHOR_WITNESSES": json.dumps([{"url": url, "vkey": witness.vkey}]),
            "CLOISTER_ANCHOR_INTERVAL_S": "0.2",
            "CLOISTER_ANCHOR_DEADLINE_S": "3",
        }
        with running_appliance(tmp_path / "state", **settings) as appliance:
            vkey = LogVerifier.from_vkey((tmp_path / "state" / "log" / "verifier.vkey").read_text())
            with appliance.client("developer") as developer:
                assert developer.post("/v1/completions", json=ASKED).status_code == 200
            line = collector.recv(65536)
            with appliance.client("auditor") as auditor:
                metrics = told_of_the_silent_witness(auditor)
            assert appliance.stop() == 0
        captured.write_bytes(line + b"\n")
    failing_sinks = dict(re.findall(r'cloister_anchor_failing\{sink="([^"]+)"\} (\d)', metrics))
    assert failing_sinks[f"directory:{medium}"] == "0"
    assert failing_sinks["witness:w.example/silent"] == "1"
    db = tmp_path / "state" / "log" / "audit.db"
    size = verify_log(db, [vkey], None).num_leaves
    assert read_anchors(medium, [vkey]).anchors[-1].source.endswith(f"/{size}.checkpoint")
    command = ["verify", str(db), "--anchors", str(medium), "--anchors", str(captured)]
    kept = tmp_path / "kept.vkey"
    kept.write_text(vkey.vkey)
    said = CliRunner().invoke(app, [*command, "--vkey", str(kept)])
    assert said.exit_code == 0, said.output

    with attacker(db) as connection:
        [before] = connection.execute("SELECT size FROM checkpoint ORDER BY size DESC LIMIT 1 OFFSET 1").fetchone()
        for table, column in (("leaf", "idx"), ("leaf_policy", "idx"), ("content", "idx")):
            connection.execute(f"DELETE FROM {table} WHERE {column} >= {before}")
        connection.execute(f"DELETE FROM node WHERE ((idx + 1) << level) > {before}")
        connection.execute(f"DELETE FROM checkpoint WHERE size > {before}")
    assert verify_log(db, [vkey], None).ok
    said = CliRunner().invoke(app, [*command, "--vkey", str(kept)])
    assert said.exit_code == 4
    assert f"log end {before}" in said.output
