"""A log whose first entries were pruned by a recorded act gives a pack, and both verifiers know why they are gone."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
from audit_log_builder import event_now
from evidence_packs import PAIRING, SIGNER, build_mixed_log, make_pack
from two_verifiers import STANDALONE, judge

from audit.event import Floor, Pruned
from audit.evidence.index import PackIndex
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
