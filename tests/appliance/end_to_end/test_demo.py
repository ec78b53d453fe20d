"""What a newcomer and an auditor type, typed: the tour, the banner's two ways to ask, and the client verbs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from live_appliance import REPOSITORY, LiveAppliance

BIN = Path(sys.executable).parent
DEADLINE_S = 120


def _environment(live: LiveAppliance, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLOISTER_")}
    port = live.url.rsplit(":", 1)[1]
    return {**kept, "CLOISTER_STATE_DIR": str(live.state_dir), "CLOISTER_PORT": port, **more}


def _cloister(live: LiveAppliance, *arguments: str, exit_code: int = 0, **environment: str) -> str:
    """Run the real command; give what it printed on standard output."""
    done = subprocess.run(
        [BIN / "cloister", *arguments],
        env=_environment(live, **environment),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if exit_code == 0 else done.stdout + done.stderr


def test_the_tour_shows_everything_and_names_the_flipped_entry(live: LiveAppliance, tmp_path: Path):
    """Answer, receipt, record, proof, denial, a sound export, and one flipped bit found in the very entry."""
    out = _cloister(live, "demo", "--keep", str(tmp_path / "log"))
    index = re.search(r"^receipt: (\d+):[0-9a-f]{64}$", out, re.MULTILINE)[1]
    assert f"PROVEN: entry {index} is in the tree" in out
    assert "403" in out
    assert "request:denied" in out
    sound, flipped = out.split("--- 6.")
    assert "VERIFIED: nothing contradicts anything" in sound
    assert "NOT VERIFIED" not in sound
    assert "NOT VERIFIED" in flipped
    assert re.search(rf"entry (bundle )?{index} ", flipped.split("flipped one bit", 1)[1].split("\n", 1)[1])
    assert (tmp_path / "log").is_dir()
    assert "does not verify" in _cloister(live, "audit", "verify", str(tmp_path / "log"), exit_code=4)


def test_the_curl_line_of_the_banner_works_as_printed(live: LiveAppliance, tmp_path: Path):
    """Pasted into a shell, in another folder: one JSON answer; the key is not in the line."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (line,) = (line for line in live.banner.splitlines() if line.startswith("curl "))
    assert live.keys["developer"] not in line
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=DEADLINE_S, check=True, cwd=tmp_path
    )
    answer = json.loads(done.stdout)
    assert answer["choices"][0]["message"]["content"]
    assert answer["object"] == "chat.completion"


def test_the_python_snippet_of_the_banner_works_as_printed(live: LiveAppliance, tmp_path: Path):
    """Five lines, the interpreter that the banner names, any folder: an answer, the same as curl's model gives."""
    lines = live.banner.splitlines()
    first = lines.index("import json, openai")
    interpreter = re.search(r"\((\S+/bin/python) has `openai`\)", live.banner)[1]
    (tmp_path / "ask.py").write_text("\n".join(lines[first : first + 5]) + "\n")
    done = subprocess.run(
        [interpreter, "ask.py"], capture_output=True, text=True, timeout=DEADLINE_S, check=True, cwd=tmp_path
    )
    with live.client("developer") as developer:
        from appliance.cli.sample import MESSAGES  # noqa: PLC0415 - beside its only use

        body = {"model": "starter", "messages": MESSAGES, "temperature": 0}
        expected = developer.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    assert done.stdout == expected + "\n"


def test_an_auditor_reads_and_proves_through_the_command(live: LiveAppliance, tmp_path: Path):
    """`tail`, `show` and `prove` see what was recorded, and each read is itself an entry."""
    with live.client("developer") as developer:
        answer = developer.post("/v1/completions", json={"model": "starter", "prompt": "x", "max_tokens": 1})
    index = answer.headers["x-cloister-receipt"].split(":")[0]
    entries = [json.loads(line) for line in _cloister(live, "audit", "tail", "-n", "50", "--json").splitlines()]
    assert [entry["index"] for entry in entries] == sorted(entry["index"] for entry in entries)
    assert entries[-1]["kind"] == "log:read"
    assert f" {index} " in _cloister(live, "audit", "tail", "--count", "1000")
    shown = json.loads(_cloister(live, "audit", "show", index))
    assert (shown["kind"], shown["subject"]) == ("request:admitted", answer.headers["x-request-id"])
    proof = tmp_path / "entry.tlog-proof"
    out = _cloister(live, "audit", "prove", index, "--out", str(proof))
    assert f"entry {index} is in the tree" in out
    assert proof.read_text().startswith("c2sp.org/tlog-proof@v1\n")


def test_a_receipt_is_checked_with_the_appliance_and_later_without(live: LiveAppliance, tmp_path: Path):
    """Fetched once by its owner, the proof holds anywhere; for another receipt it does not."""
    with live.client("developer") as client:
        body = {"model": "starter", "prompt": "Hello", "max_tokens": 1}
        receipts = [client.post("/v1/completions", json=body).headers["x-cloister-receipt"] for _ in range(2)]
    proof = tmp_path / "kept.proof"
    assert f"entry {receipts[0].split(':')[0]} is in the tree" in _cloister(
        live, "audit", "check-receipt", receipts[0], "--out", str(proof)
    )
    kept_key = tmp_path / "kept.vkey"
    shutil.copy(live.state_dir / "log" / "verifier.vkey", kept_key)
    elsewhere = {"CLOISTER_STATE_DIR": str(tmp_path / "no-state"), "CLOISTER_PORT": "1"}
    offline = ("--proof", str(proof), "--vkey", str(kept_key))
    assert "is in the tree" in _cloister(live, "audit", "check-receipt", receipts[0], *offline, **elsewhere)
    assert "this proof is of entry" in _cloister(
        live, "audit", "check-receipt", receipts[1], *offline, exit_code=4, **elsewhere
    )
    changed = receipts[0][:-1] + ("0" if receipts[0][-1] != "0" else "1")
    _cloister(live, "audit", "check-receipt", changed, *offline, exit_code=4, **elsewhere)
    assert "a receipt is" in _cloister(live, "audit", "check-receipt", "7", *offline, exit_code=2, **elsewhere)


def test_an_export_verifies_elsewhere_and_a_changed_one_does_not(live: LiveAppliance, tmp_path: Path):
    """Export while the appliance runs, verify with a kept key and an older checkpoint; then change one byte."""
    with live.client("auditor") as auditor:
        (tmp_path / "kept.checkpoint").write_text(auditor.get("/audit/checkpoint").text)
    kept_key = shutil.copy(live.state_dir / "log" / "verifier.vkey", tmp_path / "kept.vkey")
    _cloister(live, "audit", "export", str(tmp_path / "copy"))
    known = ("--vkey", str(kept_key), "--checkpoint", str(tmp_path / "kept.checkpoint"))
    verdict = json.loads(_cloister(live, "audit", "verify", str(tmp_path / "copy"), *known, "--json"))
    assert verdict["verified"] is True
    assert verdict["findings"] == []
    assert verdict["num_leaves"] == verdict["head_size"] > 0
    assert "VERIFIED" in _cloister(live, "audit", "verify", *known), "the running log verifies as well"
    bundle = next(path for path in (tmp_path / "copy").rglob("*") if path.is_file() and "entries" in path.parts)
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    bundle.write_bytes(content)
    out = _cloister(live, "audit", "verify", str(tmp_path / "copy"), *known, exit_code=4)
    assert "NOT VERIFIED" in out


def test_the_operator_lists_keys_and_others_are_denied(live: LiveAppliance):
    """Every key without its secret; a developer's key gets exit code 3, an unreachable appliance 1, no index 2."""
    rows = json.loads(_cloister(live, "key", "list", "--json"))
    assert {role for row in rows for role in row["roles"]} == {"developer", "operator", "auditor", "privacy", "peer"}
    out = _cloister(live, "key", "list")
    for role, key in live.keys.items():
        assert role in out
        assert key not in out
    denied = _cloister(live, "key", "list", exit_code=3, CLOISTER_API_KEY=live.keys["developer"])
    assert "403" in denied
    assert "make serve" in _cloister(live, "key", "list", exit_code=1, CLOISTER_URL="http://127.0.0.1:9")
    _cloister(live, "audit", "show", "not-a-number", exit_code=2)
    assert "404" in _cloister(live, "audit", "show", str(2**40), exit_code=1)
