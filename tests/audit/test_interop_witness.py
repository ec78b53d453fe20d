"""Strangers' programs and our cosignatures: aics-witness cosigns our log, aics-tlog believes our witness.

Run by `make interop-log`, which names an environment of their own with both in it by CLOISTER_TLOG_PYTHON.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from anchored_logs import Tree, numbered
from audit_log_builder import SIGNER
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from live_appliance import free_port

from audit.anchoring.http_post import HttpAddress
from audit.anchoring.kept import KeptNotes
from audit.anchoring.submission import Submission
from audit.anchoring.witness import Witness
from audit.anchoring.witness_client import WitnessAddress, WitnessSink
from audit.cosignature import CosignatureVerifier, Cosigner, cosignatures_of
from audit.errors import AnchorAhead

FOREIGN = os.environ.get("CLOISTER_TLOG_PYTHON", "")
pytestmark = pytest.mark.skipif(not FOREIGN, reason="no foreign log verifiers (make interop installs them)")
TREE = Tree(numbered(300))
FORK = Tree(numbered(300, changed=5))
OURS = Cosigner("cloister.example/witness", Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
ENOUGH_S = 60.0


def _foreign(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [Path(FOREIGN).with_name(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _believes(folder: Path, note: str, witness: CosignatureVerifier, *, quorum: int = 1) -> bool:
    (folder / "kept.vkey").write_text(SIGNER.verifier.vkey)
    (folder / "note").write_text(note)
    done = _foreign(
        "aics-tlog",
        *("verify-checkpoint", "--note", folder / "note", "--vkey-file", folder / "kept.vkey"),
        *("--witness-key", witness.vkey, "--quorum", str(quorum), "--max-age", "600"),
    )
    return done.returncode == 0


def test_a_foreign_verifier_counts_our_witness_and_no_line_that_is_not_its(tmp_path: Path) -> None:
    """Cosigned now; without the line, under another key, with one bit changed, or too long ago it does not count."""
    witness = Witness(tmp_path / "witness", OURS, [SIGNER.verifier], now_s=lambda: int(time.time()))
    cosigned = witness.add_checkpoint(Submission(0, (), TREE.head(300).note).to_text())
    assert _believes(tmp_path, cosigned.note, OURS.verifier)
    assert not _believes(tmp_path, TREE.head(300).note, OURS.verifier)
    stranger = Cosigner("cloister.example/other", Ed25519PrivateKey.from_private_bytes(b"\x03" * 32))
    assert not _believes(tmp_path, cosigned.note, stranger.verifier)
    altered = cosigned.note[:-10] + ("A" if cosigned.note[-10] != "A" else "B") + cosigned.note[-9:]
    assert not _believes(tmp_path, altered, OURS.verifier)
    head = TREE.head(300)
    old = head.note + OURS.cosign(head.checkpoint.text(), int(time.time()) - 7200).line
    assert not _believes(tmp_path, old, OURS.verifier)


@pytest.fixture
def foreign_witness(tmp_path: Path) -> Iterator[tuple[str, CosignatureVerifier]]:
    """`aics-witness serve`, told of our log."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    config, port = folder / "witness.json", free_port()
    made = _foreign("aics-witness", "init", "-c", config, "--name", "w.example/1", "--listen", f"127.0.0.1:{port}")
    assert made.returncode == 0, made.stderr
    vkey = re.search(r"w\.example/1\+[0-9a-f]{8}\+\S+", made.stdout)
    assert vkey is not None, made.stdout
    added = _foreign("aics-witness", "add-log", "-c", config, "--origin", SIGNER.name, "--vkey", SIGNER.verifier.vkey)
    assert added.returncode == 0, added.stderr
    command = [Path(FOREIGN).with_name("aics-witness"), "serve", "-c", config]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if str(port) in line:
                break
        yield f"http://127.0.0.1:{port}", CosignatureVerifier.from_vkey(vkey[0])
        process.terminate()


def test_a_foreign_witness_cosigns_our_log_and_finds_its_fork(
    foreign_witness: tuple[str, CosignatureVerifier], tmp_path: Path
) -> None:
    """First contact, growth, a client that forgot where the witness was, a rollback, a fork."""
    url, verifier = foreign_witness
    address = WitnessAddress(HttpAddress.from_url(url), verifier)

    def anchor(tree: Tree, size: int, folder: str = "kept") -> None:
        (tmp_path / folder).mkdir(exist_ok=True)
        sink = WitnessSink(address, tree.prove, KeptNotes(tmp_path / folder, [verifier]))
        assert sink.anchor(tree.head(size), time.monotonic() + ENOUGH_S).size == size

    for size in (7, 7, 256, 257):
        anchor(TREE, size)
    anchor(TREE, 300, "forgot")
    note = (tmp_path / "forgot" / "w.example%2F1.checkpoint").read_text()
    assert cosignatures_of(note, [verifier])
    assert _believes(tmp_path, note, verifier)
    with pytest.raises(AnchorAhead):
        anchor(TREE, 7, "rolled back")
    with pytest.raises(AnchorAhead):
        anchor(FORK, 300, "forked")
