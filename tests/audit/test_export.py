from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_log_builder import OTHER_SIGNER, PAIRING, SIGNER, attacker, build_log, make_event, request_events

from audit.checkpoint import LogVerifier, sign_checkpoint
from audit.errors import AuditCorrupt, LogExists, ProofRefused
from audit.export import export_log
from audit.merkle import leaf_hash
from audit.report import Place, Report
from audit.tiles import Tile, decode_bundle, encode_bundle, tiles_of
from audit.verify import verify_log

NUM_LEAVES = 600
BITS_PER_FILE = 10


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported log of 600 leaves: two full tiles, one partial, and a level above."""
    folder = tmp_path_factory.mktemp("export")
    events = [make_event(number, "request:denied") for number in range(NUM_LEAVES)]
    build_log(folder / "audit.db", events, [200, 200, 200])
    export_log(folder / "audit.db", folder / "pack", SIGNER.verifier)
    return folder / "pack"


def verify(folder: Path, **arguments: object) -> Report:
    """Verify with the log's own key."""
    return verify_log(folder, [SIGNER.verifier], PAIRING, **arguments)


def log_files(pack: Path) -> list[Path]:
    """Every file of the exported log itself."""
    return sorted(path for path in (pack / "tlog").rglob("*") if path.is_file())


def test_the_layout_is_the_one_of_tlog_tiles(pack: Path) -> None:
    """Paths, widths and levels as the specification has them."""
    names = {path.relative_to(pack).as_posix() for path in pack.rglob("*") if path.is_file()}
    assert names == {
        "log.vkey",
        "tlog/checkpoint",
        "tlog/tile/0/000",
        "tlog/tile/0/001",
        "tlog/tile/0/002.p/88",
        "tlog/tile/1/000.p/2",
        "tlog/tile/entries/000",
        "tlog/tile/entries/001",
        "tlog/tile/entries/002.p/88",
    }
    assert LogVerifier.from_vkey((pack / "log.vkey").read_text()) == SIGNER.verifier


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 1_234_067, 256), "tile/0/x001/x234/067"),
        (Tile(None, 1_000, 1), "tile/entries/x001/000.p/1"),
        (Tile(63, 0, 255), "tile/63/000.p/255"),
        (Tile(2, 999, 256), "tile/2/999"),
    ],
)
def test_tile_paths_are_grouped_by_three_digits(tile: Tile, path: str) -> None:
    """The specification's own example among them."""
    assert tile.path == path


@pytest.mark.parametrize(
    ("size", "counts"),
    [(0, {}), (1, {0: 1}), (256, {0: 1, 1: 1}), (70_000, {0: 274, 1: 2, 2: 1}), (65_536, {0: 256, 1: 1, 2: 1})],
)
def test_a_tree_needs_the_tiles_that_the_specification_counts(size: int, counts: dict[int, int]) -> None:
    """Full and partial tiles per level, 70,000 leaves as in the text."""
    levels = [tile.level for tile in tiles_of(size)]
    assert {level: levels.count(level) for level in set(levels) - {None}} == counts
    assert levels.count(None) == counts.get(0, 0)


def test_a_bundle_written_is_a_bundle_read() -> None:
    """Lengths up to the largest leaf; what does not fit is named."""
    leaves = [b"", b"a", b"b" * 65_535]
    assert decode_bundle(encode_bundle(leaves), 3) == (leaves, None)
    assert decode_bundle(encode_bundle(leaves), 2)[1] == "65537 bytes follow the last entry"
    assert decode_bundle(encode_bundle(leaves)[:-1], 3) == (leaves[:2], "the bundle ends within entry 2 of 3")
    assert decode_bundle(b"\x00", 1)[0] == []


def test_an_exported_log_verifies_with_files_and_key_alone(pack: Path) -> None:
    """Everything the database proves, the folder proves."""
    report = verify(pack)
    assert report.findings == ()
    assert (report.num_leaves, report.head_size) == (NUM_LEAVES, NUM_LEAVES)
    assert verify(pack / "tlog").ok


def test_a_pack_of_requests_has_the_same_states(tmp_path: Path) -> None:
    """The state machine runs over a folder as over a database."""
    build_log(tmp_path / "a.db", request_events(5), [4, 5])
    export_log(tmp_path / "a.db", tmp_path / "pack", SIGNER.verifier)
    assert verify(tmp_path / "pack").unfinished == verify(tmp_path / "a.db").unfinished == (("req-4", 7),)


def test_an_empty_log_is_a_log(tmp_path: Path) -> None:
    """Nothing but its signed head."""
    build_log(tmp_path / "a.db", [], [])
    export_log(tmp_path / "a.db", tmp_path / "pack", SIGNER.verifier)
    assert verify(tmp_path / "pack").ok
    assert [path.name for path in log_files(tmp_path / "pack")] == ["checkpoint"]


def flipped_bits(content: bytes, draw: random.Random) -> Iterator[tuple[int, bytes]]:
    """Sampled single-bit changes, with the byte's position."""
    for bit in draw.sample(range(8 * len(content)), BITS_PER_FILE):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bit // 8, bytes(changed)


def test_a_flipped_bit_in_any_file_is_found_in_that_file(pack: Path) -> None:
    """Checkpoint, every tile, every bundle; a hash or an entry is named by its index."""
    draw = random.Random(11)
    for path in log_files(pack):
        honest, name = path.read_bytes(), path.relative_to(pack / "tlog").as_posix()
        for position, changed in flipped_bits(honest, draw):
            path.write_bytes(changed)
            findings = verify(pack).findings
            if name == "checkpoint":
                assert [finding.place for finding in findings] == [Place.CHECKPOINT_SIGNATURE]
            elif name.startswith("tile/entries"):
                index = entry_at(honest, int(name[13:16]) * 256, position)
                assert (Place.ENTRY_BUNDLE, index, name) in {(f.place, f.index, f.where) for f in findings}
            else:
                span = 256 if name.startswith("tile/1") else 1
                index = (int(name[7:10]) * 256 + position // 32) * span
                assert [(finding.place, finding.index) for finding in findings] == [(Place.TILE, index)]
        path.write_bytes(honest)
    assert verify(pack).ok


def entry_at(bundle: bytes, first: int, position: int) -> int:
    """Index of the entry that a byte of a bundle belongs to, its length included."""
    start = 0
    while True:
        end = start + 2 + int.from_bytes(bundle[start : start + 2], "big")
        if position < end:
            return first
        start, first = end, first + 1


def test_a_missing_or_surplus_file_is_named(pack: Path) -> None:
    """Exactly the files of this size, no other."""
    for path in log_files(pack):
        aside = pack / "aside"
        path.rename(aside)
        name = path.relative_to(pack / "tlog").as_posix()
        assert (Place.FILE, name) in {(finding.place, finding.where) for finding in verify(pack).findings}
        aside.rename(path)
    surplus = pack / "tlog" / "tile" / "0" / "003"
    surplus.write_bytes(b"")
    assert [(f.place, f.where) for f in verify(pack).findings] == [(Place.FILE, "tile/0/003")]
    surplus.unlink()


@pytest.mark.parametrize("index", [0, 255, 256, 599])
def test_an_entry_rewritten_with_its_hash_does_not_lead_to_the_root(pack: Path, index: int) -> None:
    """Bundle and level-0 tile agree; what is above them, or the signed root, does not."""
    number, position = divmod(index, 256)
    width = 88 if number == 2 else 256
    bundle, tile = (pack / "tlog" / Tile(level, number, width).path for level in (None, 0))
    honest = bundle.read_bytes(), tile.read_bytes()
    leaves, _ = decode_bundle(honest[0], width)
    leaves[position] = leaves[position].replace(b'"tenant-', b'"tenanx-')
    bundle.write_bytes(encode_bundle(leaves))
    digest = leaf_hash(leaves[position])
    tile.write_bytes(honest[1][: position * 32] + digest + honest[1][position * 32 + 32 :])
    findings = {(finding.place, finding.index) for finding in verify(pack).findings}
    bundle.write_bytes(honest[0])
    tile.write_bytes(honest[1])
    assert (Place.CHECKPOINT_ROOT, NUM_LEAVES) in findings
    if number < 2:
        assert (Place.TILE, number * 256) in findings


def test_known_heads_are_held_against_a_pack(tmp_path: Path, pack: Path) -> None:
    """Older, newer and foreign checkpoints: sound, truncated, forked."""
    events = [make_event(number, "request:denied") for number in range(NUM_LEAVES)]
    build_log(tmp_path / "longer.db", [*events, make_event(1, "request:denied")], [200, 200, 200, 1])
    longer = verify_log(tmp_path / "longer.db", [SIGNER.verifier], PAIRING)
    assert longer.ok
    notes = notes_of(tmp_path / "longer.db")
    assert verify(pack, known_notes=[notes[200], notes[400], notes[600]]).ok
    cut = verify(pack, known_notes=[notes[601]])
    assert [(finding.place, finding.index) for finding in cut.findings] == [(Place.TRUNCATED, 600)]
    head = SIGNER.verifier.open(notes[400])
    other = sign_checkpoint(head.__class__(head.origin, 400, b"\x01" * 32), [SIGNER])
    forked = verify(pack, known_notes=[notes[200], other])
    assert [(finding.place, finding.index) for finding in forked.findings] == [(Place.FORK, 200)]


def notes_of(path: Path) -> dict[int, str]:
    """Every stored checkpoint by size."""
    with attacker(path) as raw:
        return dict(raw.execute("SELECT size, note FROM checkpoint").fetchall())


def test_a_pack_of_another_key_is_refused_whole(pack: Path) -> None:
    """The key in the folder is never believed."""
    report = verify_log(pack, [OTHER_SIGNER.verifier], None)
    assert [finding.place for finding in report.findings] == [Place.CHECKPOINT_SIGNATURE]


def test_an_export_replaces_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Whole or not at all: an existing folder, a foreign key, a hole in the log."""
    build_log(tmp_path / "a.db", request_events(5), [9])
    (tmp_path / "pack").mkdir()
    with pytest.raises(LogExists):
        export_log(tmp_path / "a.db", tmp_path / "pack", SIGNER.verifier)
    with pytest.raises(ProofRefused):
        export_log(tmp_path / "a.db", tmp_path / "other", OTHER_SIGNER.verifier)
    with attacker(tmp_path / "a.db") as raw:
        raw.execute("DELETE FROM leaf WHERE idx = 3")
    with pytest.raises(AuditCorrupt):
        export_log(tmp_path / "a.db", tmp_path / "other", SIGNER.verifier)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["pack"]
