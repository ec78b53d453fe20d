"""Programs that nobody here wrote read our exported log: aics-tlog (formats, proofs) and pymerkle (the tree's maths).

Run by `make interop`, which names an environment of their own with both in it by CLOISTER_TLOG_PYTHON.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from audit_log_builder import SIGNER, build_log, make_event

from audit.checkpoint import open_checkpoint
from audit.export import export_log
from audit.reader import AuditReader, EntryFilter

FOREIGN = os.environ.get("CLOISTER_TLOG_PYTHON", "")
pytestmark = pytest.mark.skipif(not FOREIGN, reason="no foreign log verifiers (make interop installs them)")

BATCH_LENS = [*[256] * 257, 7]
NUM_LEAVES = sum(BATCH_LENS)
"""Past 65,536, so that the tree has a tile at level 2."""
PROVEN = (0, 255, 256, 65_535, 65_536, NUM_LEAVES - 1)
PYMERKLE_ROOT = """
import sys
from pymerkle import InmemoryTree
tree = InmemoryTree(algorithm="sha256")
for line in sys.stdin.buffer:
    tree.append_entry(bytes.fromhex(line.decode()))
print(tree.get_state().hex())
"""
WALK_ALL_TILES = """
import sys
from pathlib import Path
from aics_tlog import FileSystemTileReader, audit_tiles
audit_tiles(FileSystemTileReader(Path(sys.argv[1])), int(sys.argv[2]), bytes.fromhex(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A log with a tree of three tile levels, exported, its key kept elsewhere, and a checkpoint from its middle."""
    folder = tmp_path_factory.mktemp("interop")
    events = [make_event(number, "request:denied") for number in range(NUM_LEAVES)]
    build_log(folder / "audit.db", events, BATCH_LENS)
    export_log(folder / "audit.db", folder / "pack", SIGNER.verifier)
    (folder / "kept.vkey").write_text(SIGNER.verifier.vkey)
    with AuditReader(folder / "audit.db") as reader:
        (folder / "kept.note").write_text(reader.checkpoint(256 * 100).note)
        for index in PROVEN:
            (folder / f"{index}.leaf").write_bytes(reader.entry(index).leaf_bytes)
    return folder


def _aics(folder, *arguments, pack="pack"):
    command = [Path(FOREIGN).with_name("aics-tlog"), *arguments]
    where = ["--tiles", folder / pack / "tlog", "--vkey-file", folder / "kept.vkey"]
    return subprocess.run([*command, *where], capture_output=True, text=True, check=False)


def _walk(folder, pack="pack"):
    head = open_checkpoint((folder / pack / "tlog" / "checkpoint").read_text(), [SIGNER.verifier])
    command = [FOREIGN, "-c", WALK_ALL_TILES, folder / pack / "tlog", str(head.size), head.root.hex()]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_foreign_program_accepts_checkpoint_inclusion_and_consistency(folder):
    """The signed head, growth from a checkpoint kept earlier, and entries at the edges of tiles."""
    done = _aics(folder, "verify-checkpoint")
    assert done.returncode == 0, done.stdout + done.stderr
    done = _aics(folder, "verify-consistency", "--old-checkpoint", folder / "kept.note")
    assert done.returncode == 0, done.stdout + done.stderr
    for index in PROVEN:
        done = _aics(folder, "verify-inclusion", "--leaf", folder / f"{index}.leaf", "--index", str(index))
        assert done.returncode == 0, done.stdout + done.stderr
    wrong = _aics(folder, "verify-inclusion", "--leaf", folder / "255.leaf", "--index", "256")
    assert wrong.returncode == 1, wrong.stdout + wrong.stderr


def test_a_foreign_walk_over_every_tile_agrees_and_finds_a_flipped_bit(folder):
    """Sound as exported; one bit of one entry, of a hash tile and of the head each break it."""
    assert _walk(folder).returncode == 0
    for number, name in enumerate(("tile/entries/100", "tile/0/200", "tile/1/000")):
        pack = f"damaged-{number}"
        shutil.copytree(folder / "pack", folder / pack)
        damaged = folder / pack / "tlog" / name
        content = bytearray(damaged.read_bytes())
        content[100] ^= 1
        damaged.write_bytes(content)
        assert _walk(folder, pack).returncode == 1, name
    shutil.copytree(folder / "pack", folder / "forged")
    note = folder / "forged" / "tlog" / "checkpoint"
    note.write_text(note.read_text().replace(str(NUM_LEAVES), str(NUM_LEAVES - 1)))
    assert _aics(folder, "verify-checkpoint", pack="forged").returncode == 1


def test_a_foreign_tree_has_the_same_root(folder):
    """The root of the same leaves by pymerkle is the one that we sign."""
    with AuditReader(folder / "audit.db") as reader:
        lines = b"".join(entry.leaf_bytes.hex().encode() + b"\n" for entry in _all_entries(reader))
        root = open_checkpoint(reader.head().note, [SIGNER.verifier]).root
    done = subprocess.run([FOREIGN, "-c", PYMERKLE_ROOT], input=lines, capture_output=True, check=True)
    assert done.stdout.decode().strip() == root.hex()


def _all_entries(reader):
    after = None
    while True:
        page = reader.entries(EntryFilter(), after=after, limit=1000)
        yield from page.entries
        if page.next_after is None:
            return
        after = page.next_after
