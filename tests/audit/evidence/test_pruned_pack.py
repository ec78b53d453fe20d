"""A log whose first entries were pruned by a recorded act gives a pack, and both verifiers know why they are gone."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from audit_log_builder import build_log, event_now, make_event
from evidence_packs import PAIRING, SIGNER, build_mixed_log, make_pack
from two_verifiers import STANDALONE, judge

from audit.event import Floor, Pruned
from audit.evidence.index import PackIndex
from audit.evidence.tile_log import TileLog
from audit.export import export_log
from audit.reader import AuditReader
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig

NUM_LEAVES = 700
HEADS = (16, 512, 688)


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    """A folder with a pack of a log that lost 512 entries, and heads from before and after."""
    path = tmp_path / "audit.db"
    build_mixed_log(path, NUM_LEAVES)
    with AuditReader(path) as reader:
        for size in HEADS:
            (tmp_path / f"kept-{size}").write_text(reader.checkpoint(size).note)
    act = dataclasses.replace(event_now(0, "log:pruned", "log"), facts={"by": "two people"})
    writer = AuditWriter.open(WriterConfig(path, "node-1", "boot-3", min_free_bytes=0), [SIGNER])
    try:
        asyncio.run(writer.prune(act, Floor(Pruned.LEAF, 512)))
    finally:
        writer.close()
    make_pack(path, tmp_path / "pack", started_index=600)
    return tmp_path


def test_a_pruned_pack_passes_both(pruned: Path) -> None:
    """Its index names the floor; records and proofs begin there."""
    index = PackIndex.from_bytes((pruned / "pack" / "index.json").read_bytes())
    assert index.minimum_index == 512
    assert index.num_records == index.head_size - 512
    assert judge(pruned / "pack", SIGNER.verifier).passed == (True, True)


@pytest.mark.parametrize("size", HEADS)
def test_a_kept_head_below_within_or_above_is_no_fault(pruned: Path, size: int) -> None:
    """One below the floor cannot be compared to the end, and is not called a fork."""
    note = (pruned / f"kept-{size}").read_text()
    assert judge(pruned / "pack", SIGNER.verifier, [note]).passed == (True, True)


def test_a_kept_head_that_cannot_be_compared_is_said(pruned: Path) -> None:
    """Nobody takes a pass for a comparison with a head that lies within the pruned blocks."""
    (pruned / "auditor.vkey").write_text(SIGNER.verifier.vkey)
    for size, is_said in ((16, True), (512, False), (688, False)):
        command = [sys.executable, "-I", "-S", str(pruned / "pack/verify.py"), str(pruned / "pack")]
        options = ["--key", str(pruned / "auditor.vkey"), "--checkpoint", str(pruned / f"kept-{size}")]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
        assert ("lies among pruned ones: its root was not compared" in done.stdout) is is_said
        assert done.stdout.endswith("PASS\n")


@pytest.mark.parametrize("ended_at", [514, 600])
def test_a_second_end_of_what_began_among_pruned_entries_is_found(tmp_path: Path, ended_at: int) -> None:
    """Its beginning is out of sight, and that it began once does not let it end twice."""
    lines = [make_event(index, "log:read", f"read-{index}") for index in range(NUM_LEAVES)]
    for index in (513, ended_at):
        facts = {"admitted_index": 7, "outcome": "completed"}
        lines[index] = make_event(index, "request:completed", "r7", **facts)
    lines[7] = make_event(7, "request:admitted", "r7")
    build_log(tmp_path / "audit.db", lines, [NUM_LEAVES])
    act = dataclasses.replace(event_now(0, "log:pruned", "log"), facts={"by": "two people"})
    writer = AuditWriter.open(WriterConfig(tmp_path / "audit.db", "node-1", "boot-3", min_free_bytes=0), [SIGNER])
    try:
        asyncio.run(writer.prune(act, Floor(Pruned.LEAF, 512)))
    finally:
        writer.close()
    export_log(tmp_path / "audit.db", tmp_path / "export", SIGNER.verifier)
    [finding] = verify_log(tmp_path / "export", [SIGNER.verifier], PAIRING).findings
    assert finding.index == ended_at
    history = STANDALONE.History()
    leaves = enumerate(TileLog(tmp_path / "export" / "tlog", [SIGNER.verifier]).leaves())
    found = [at for _, (at, leaf) in leaves for _ in history.faults(at, STANDALONE.decode_leaf(leaf), 512)]
    assert found == [ended_at]


def test_entries_that_are_gone_without_an_act_are_missing(tmp_path: Path) -> None:
    """Files removed from a pack whose log was never pruned, whatever its index says."""
    build_mixed_log(tmp_path / "a.db", NUM_LEAVES)
    make_pack(tmp_path / "a.db", tmp_path / "pack")
    for name in ("tile/entries/000", "tile/0/000"):
        (tmp_path / "pack" / "tlog" / name).unlink()
    verdicts = judge(tmp_path / "pack", SIGNER.verifier)
    assert verdicts.passed == (False, False)
    assert not verify_log(tmp_path / "pack" / "tlog", [SIGNER.verifier], PAIRING).ok
    assert STANDALONE.verify(tmp_path / "pack", [STANDALONE.read_key(SIGNER.verifier.vkey)], [])[1][0][0] == 0
