"""Entries, rows, files and whole logs moved, dropped, doubled, cut, restored, rebuilt: what both verifiers must find.

The suite takes a few places of each kind; the long lane (`make tamper`) takes all of them and prints the table.
An attacker here edits files as their owner can, and recomputes every hash that needs no key.  With the signing key the
attacker can also sign and seal; then only a checkpoint that the auditor kept tells.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from audit_log_builder import OTHER_SIGNER, build_log
from evidence_packs import SIGNER, batches_of, build_mixed_log, make_pack, mixed_events, root_of, write_log
from tamper_table import TamperRow, note
from two_verifiers import judge

from audit.checkpoint import Checkpoint, LogSigner, sign_checkpoint
from audit.evidence.tile_log import TileLog
from audit.reader import AuditReader

NUM_LEAVES = 500
BATCH_LEN = 16
OURS, STANDALONE = "cloister audit verify", "verify.py"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 500 entries, its pack, and a note for each of its heads."""
    folder = tmp_path_factory.mktemp("honest")
    build_mixed_log(folder / "audit.db", NUM_LEAVES, BATCH_LEN)
    with AuditReader(folder / "audit.db") as reader:
        for size in HEADS:
            (folder / f"kept-{size}").write_text(reader.checkpoint(size).note)
    make_pack(folder / "audit.db", folder / "pack")
    return folder


FILES = ("index.growth", "index.json", "proofs/1.leaf", "records.csv", "records.parquet", "tlog/tile/0/000")
HEADS = [*range(BATCH_LEN, NUM_LEAVES, BATCH_LEN), NUM_LEAVES]


@pytest.fixture
def pack(honest: Path, tmp_path: Path) -> Path:
    """A copy to attack."""
    return Path(shutil.copytree(honest / "pack", tmp_path / "pack"))


def expect_found(what: str, pack: Path, kept: Sequence[str] = (), *, against: str = "") -> None:
    """Both must fail the pack; the table gets a row for each."""
    for verifier, passed in zip((OURS, STANDALONE), judge(pack, SIGNER.verifier, kept).passed, strict=True):
        note(TamperRow(f"pack: {what}", verifier + against, 1, 0, int(not passed)))
        assert not passed, (what, verifier)


def leaves_of(pack: Path) -> list[bytes]:
    """Every entry of a pack's log."""
    return [leaf for _, leaf in TileLog(pack / "tlog", [SIGNER.verifier]).leaves()]


EDITS: dict[str, Callable[[list[bytes], int], list[bytes]]] = {
    "entry deleted, tiles rebuilt": lambda leaves, i: leaves[:i] + leaves[i + 1 :],
    "entry inserted, tiles rebuilt": lambda leaves, i: [*leaves[:i], leaves[3], *leaves[i:]],
    "entry doubled, tiles rebuilt": lambda leaves, i: [*leaves[: i + 1], *leaves[i:]],
    "entries swapped, tiles rebuilt": lambda leaves, i: swapped(leaves, i, (i + 7) % len(leaves)),
    "entry changed, tiles rebuilt": lambda leaves, i: [
        *leaves[:i],
        leaves[i].replace(b"plain", b"plaim").replace(b'"v":1', b'"v":2'),
        *leaves[i + 1 :],
    ],
    "entry put for another, tiles rebuilt": lambda leaves, i: [
        *leaves[:i],
        leaves[(i + 1) % len(leaves)],
        *leaves[i + 1 :],
    ],
}


def some(values: Sequence[int], suite: set[int]) -> list[object]:
    """All of them as parameters, of which the suite takes these."""
    return [pytest.param(value, marks=() if value in suite else pytest.mark.slow) for value in values]


PLACES = some((0, 1, 15, 16, 255, 256, 257, 498, 499), {0, 256, 499})


def swapped(items: list[bytes], one: int, other: int) -> list[bytes]:
    """Two items exchanged."""
    changed = list(items)
    changed[one], changed[other] = changed[other], changed[one]
    return changed


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_log_is_found_without_the_key(pack: Path, edit: str, place: int) -> None:
    """Under the old checkpoint, and under one that names the new size and root but nobody known signed."""
    leaves = EDITS[edit](leaves_of(pack), place)
    honest_note = (pack / "tlog" / "checkpoint").read_text()
    write_log(pack / "tlog", leaves, honest_note)
    expect_found(edit, pack)
    head = Checkpoint(SIGNER.name, len(leaves), root_of(leaves))
    write_log(pack / "tlog", leaves, sign_checkpoint(head, [OTHER_SIGNER]))
    expect_found(f"{edit}, signed by another key", pack)


@pytest.mark.parametrize("place", [0, 16, 499])
@pytest.mark.parametrize("name", ["records.jsonl", "records.csv"])
@pytest.mark.parametrize("edit", list(EDITS)[:4])
def test_an_edited_view_is_found(pack: Path, name: str, edit: str, place: int) -> None:
    """Lines and rows deleted, inserted, doubled and swapped."""
    end = b"\r\n" if name.endswith("csv") else b"\n"
    pieces = (pack / name).read_bytes().split(end)
    (pack / name).write_bytes(end.join(EDITS[edit](pieces[:-1], place)) + end)
    expect_found(f"{edit.split(',', maxsplit=1)[0]} in {name}", pack)


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["some", "all"])
def test_a_file_that_is_missing_added_or_put_for_another_is_found(honest: Path, tmp_path: Path, whole: bool) -> None:
    """Each file of the pack in turn; a link to its own bytes as well."""
    names = [path.relative_to(honest / "pack").as_posix() for path in (honest / "pack").rglob("*") if path.is_file()]
    assert set(FILES) <= set(names)
    for name in sorted(names) if whole else FILES:
        pack = Path(shutil.copytree(honest / "pack", tmp_path / "pack"))
        content = (pack / name).read_bytes()
        (pack / name).unlink()
        expect_found("file deleted", pack)
        (pack / name).write_bytes(content[:-1])
        expect_found("file shortened", pack)
        (pack / name).write_bytes(content + b"\n")
        expect_found("file lengthened", pack)
        (pack / name).unlink()
        if not name.startswith("index."):
            (tmp_path / "elsewhere").write_bytes(content)
            (pack / name).symlink_to(tmp_path / "elsewhere")
            expect_found("file replaced by a link to its bytes", pack)
            (pack / name).unlink()
        (pack / name).write_bytes(content)
        (pack / f"{name}.more").write_bytes(b"")
        expect_found("file added", pack)
        shutil.rmtree(pack)


@pytest.mark.parametrize("size", some(HEADS[:-1], {16, 256}))
def test_a_log_cut_to_each_of_its_heads_is_found(honest: Path, pack: Path, tmp_path: Path, size: int) -> None:
    """In the sealed pack at once; as an older pack, whole and sealed, against a head that was kept."""
    leaves = leaves_of(pack)[:size]
    write_log(pack / "tlog", leaves, (honest / f"kept-{size}").read_text())
    expect_found("log cut to an older signed head", pack)
    build_log(tmp_path / "old.db", mixed_events(NUM_LEAVES)[:size], batches_of(size, BATCH_LEN))
    make_pack(tmp_path / "old.db", tmp_path / "old", sample_size=1)
    assert judge(tmp_path / "old", SIGNER.verifier).passed == (True, True)  # an old backup always is sound
    kept = [(honest / f"kept-{NUM_LEAVES}").read_text()]
    expect_found("older pack put for the newest", tmp_path / "old", kept, against=", kept head")


@pytest.mark.parametrize("place", some((0, 15, 16, 256, 499), {16}))
def test_a_rebuilt_log_is_found(honest: Path, tmp_path: Path, place: int) -> None:
    """All of it anew with one other event: by another key at once, by the stolen key against a kept head."""
    events = mixed_events(NUM_LEAVES)
    events[place] = dataclasses.replace(events[place], tenant="elsewhere")
    for what, signer in (("another key", OTHER_SIGNER), ("the stolen key", SIGNER)):
        path, folder = tmp_path / f"{signer is SIGNER}.db", tmp_path / f"{signer is SIGNER}"
        rebuild(path, folder, events, signer)
        if signer is SIGNER:
            assert judge(folder, SIGNER.verifier).passed == (True, True)  # without a kept head nothing can tell
            after = next(size for size in HEADS if size > place)
            for size in (after, NUM_LEAVES):
                kept = [(honest / f"kept-{size}").read_text()]
                expect_found(f"rebuilt with {what}", folder, kept, against=", kept head")
        else:
            expect_found(f"rebuilt with {what}", folder)


def rebuild(path: Path, folder: Path, events: list[object], signer: LogSigner) -> None:
    """Make a log and its sealed pack with a key."""
    build_log(path, events, batches_of(NUM_LEAVES, BATCH_LEN), signer)
    make_pack(path, folder, signer=signer, sample_size=1)


def test_a_kept_head_from_before_the_change_cannot_tell(honest: Path, tmp_path: Path) -> None:
    """What was the same until then verifies: the auditor needs the newest head."""
    events = mixed_events(NUM_LEAVES)
    events[400] = dataclasses.replace(events[400], tenant="elsewhere")
    rebuild(tmp_path / "a.db", tmp_path / "pack", events, SIGNER)
    kept = [(honest / f"kept-{size}").read_text() for size in (16, 400)]
    assert judge(tmp_path / "pack", SIGNER.verifier, kept).passed == (True, True)


def test_a_seal_of_another_log_is_found(honest: Path, pack: Path, tmp_path: Path) -> None:
    """The same index sealed by a fork: the head that proves the seal must extend the log in the pack."""
    events = mixed_events(NUM_LEAVES)
    events[7] = dataclasses.replace(events[7], tenant="elsewhere")
    rebuild(tmp_path / "fork.db", tmp_path / "fork", events, SIGNER)
    for names in (("index.leaf", "index.proof"), ("index.leaf", "index.proof", "index.growth"), ("index.json",)):
        mixed = Path(shutil.copytree(honest / "pack", tmp_path / "-".join(names)))
        for name in names:
            shutil.copyfile(tmp_path / "fork" / name, mixed / name)
        expect_found("seal of a fork", mixed)
    assert pack.exists()
