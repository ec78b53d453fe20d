"""A maker who may record any digest seals a pack that lies: what the index says, and files nobody asked for.

Whoever may make packs chooses the bytes of index.json, and the appliance records their digest.  So the seal holds, and
what the index says has to be held against the log by both verifiers alike.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from evidence_packs import SIGNER, build_mixed_log, make_pack, record_made
from two_verifiers import STANDALONE, judge

from audit.checkpoint import Checkpoint, sign_checkpoint
from audit.evidence.build import DraftFacts
from audit.evidence.growth import growth_text
from audit.evidence.index import PackIndex

NUM_LEAVES = 300


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log and its pack."""
    folder = tmp_path_factory.mktemp("maker")
    build_mixed_log(folder / "audit.db", NUM_LEAVES)
    make_pack(folder / "audit.db", folder / "pack")
    return folder


@pytest.fixture
def pack(honest: Path, tmp_path: Path) -> Path:
    """The pack and its log, to be sealed anew."""
    shutil.copy(honest / "audit.db", tmp_path / "audit.db")
    return Path(shutil.copytree(honest / "pack", tmp_path / "pack"))


def seal_anew(pack: Path, content: bytes) -> None:
    """Have the appliance record this index, whatever it says, and put entry, proof and growth beside it."""
    index = PackIndex.from_bytes((pack / "index.json").read_bytes())
    (pack / "index.json").write_bytes(content)
    made = DraftFacts(
        sha256(content).hexdigest(), index.head_size, index.head_root, index.num_records, len(index.files)
    )
    seal = record_made(pack.with_name("audit.db"), made)
    (pack / "index.leaf").write_bytes(seal.leaf_bytes)
    (pack / "index.proof").write_text(seal.proof_text)
    (pack / "index.growth").write_text(growth_text(seal.growth))


def written(index: dict[str, Any]) -> bytes:
    """As an honest maker writes it."""
    return (json.dumps(index, indent=1, sort_keys=True) + "\n").encode()


def changed(**members: object) -> Callable[[bytes], bytes]:
    """Give what says something else in these members."""
    return lambda content: written({**json.loads(content), **members})


LIES: dict[str, Callable[[bytes], bytes]] = {
    "a name twice": lambda content: content.replace(b'"num_records": 300', b'"num_records": 7,\n "num_records": 300'),
    "more records than there are": changed(num_records=9_999),
    "fewer records than there are": changed(num_records=1),
    "another log's name": changed(origin="other.example/log"),
    "another format": changed(format="cloister-evidence/2"),
    "a member that nobody knows": changed(remark="all is well"),
    "a flag for a number": changed(minimum_index=False),
    "a number with a point": changed(num_records=300.0),
    "a text for a number": changed(started_index="1"),
    "a list for the files": changed(files=[]),
    "no object at all": lambda _: b"[]\n",
    "other spaces": lambda content: content.replace(b'": ', b'":'),
    "a member of the range that nobody knows": lambda content: content.replace(
        b'"until_us"', b'"until_ut": 0,\n  "until_us"'
    ),
    "nested without end": lambda _: b"[" * 100_000,
}


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies_is_refused_by_both(pack: Path, lie: str) -> None:
    """Its digest is in the log, and it is not believed for that."""
    content = (pack / "index.json").read_bytes()
    forged = LIES[lie](content)
    assert forged != content
    seal_anew(pack, forged)
    assert judge(pack, SIGNER.verifier).passed == (False, False)


def test_the_same_index_sealed_anew_passes(pack: Path) -> None:
    """Else the lies would show nothing."""
    seal_anew(pack, (pack / "index.json").read_bytes())
    assert judge(pack, SIGNER.verifier).passed == (True, True)


def add_file(pack: Path, name: str, content: bytes) -> None:
    """Put a file in, and seal it."""
    (pack / name).write_bytes(content)
    index = json.loads((pack / "index.json").read_bytes())
    index["files"][name] = {"sha256": sha256(content).hexdigest(), "size": len(content)}
    seal_anew(pack, written(index))


@pytest.mark.parametrize("name", ["proofs/299.leaf", "proofs/12345.tlog-proof", "proofs/README.txt"])
def test_a_proof_that_the_seed_does_not_draw_is_refused_by_both(pack: Path, name: str) -> None:
    """A maker could pick what the auditor looks at, or slip in the proof of something else."""
    assert not (pack / name).exists()
    add_file(pack, name, b"no proof at all")
    verdicts = judge(pack, SIGNER.verifier)
    assert verdicts.passed == (False, False)
    assert (None, name, "the seed does not draw this entry") in verdicts.standalone


@pytest.mark.parametrize("special", ["link to nothing", "link to an empty file", "pipe"])
def test_what_is_no_file_stands_for_no_sealed_file(pack: Path, tmp_path: Path, special: str) -> None:
    """Also where the sealed file was empty, so that its digest is that of nothing at all."""
    add_file(pack, "policy-note.txt", b"")
    (pack / "policy-note.txt").unlink()
    match special:
        case "link to nothing":
            (pack / "policy-note.txt").symlink_to(tmp_path / "nothing")
        case "link to an empty file":
            (tmp_path / "empty").touch()
            (pack / "policy-note.txt").symlink_to(tmp_path / "empty")
        case "pipe":
            os.mkfifo(pack / "policy-note.txt")
    assert judge(pack, SIGNER.verifier).passed == (False, False)


@pytest.mark.parametrize("name", ["index.json", "index.proof", "records.csv", "tlog/checkpoint", "tlog/tile/0/000"])
def test_a_pipe_in_a_files_place_ends_no_verifier(pack: Path, name: str) -> None:
    """Reading one waits for ever: it is named instead."""
    (pack / name).unlink()
    os.mkfifo(pack / name)
    verdicts = judge(pack, SIGNER.verifier)
    assert [where for _, where, _ in verdicts.standalone] == [name]
    assert [where for _, where, _ in verdicts.ours] == [name]


def test_a_head_of_any_size_is_not_looked_for_entry_by_entry(pack: Path) -> None:
    """A signed size costs nothing to name: the walk ends at the first bundle that is not there."""
    head = Checkpoint(SIGNER.name, 2**62, bytes(32))
    (pack / "tlog" / "checkpoint").write_text(sign_checkpoint(head, [SIGNER]))
    size, findings, _ = STANDALONE.verify(pack, [STANDALONE.read_key(SIGNER.verifier.vkey)], [])
    assert size == 2**62
    assert len(findings) < 100
