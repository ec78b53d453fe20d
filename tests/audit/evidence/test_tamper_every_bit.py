"""Every bit of every file of a 500-entry pack, flipped: both verifiers find all of it, where it is.

The suite draws a few bits of each kind; the long lane (`make tamper`) goes through all of them and prints the table.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pytest
from evidence_packs import SIGNER
from tamper_table import TamperRow, note
from tampered_pack import (
    BUNDLES,
    NUM_LEAVES,
    TILE_WIDTH,
    TILES,
    TamperedPack,
    file_found,
    flipped,
    make_tampered_pack,
    seal_of,
    spans_of_leaves,
)
from two_verifiers import judge

from audit.evidence.index import SEAL_NAMES
from audit.merkle import leaf_hash

NUM_CHUNKS = 8
"""Parts of the long lane that run beside one another."""
NUM_DRAWN = 6
"""Passes of each kind in the suite."""
OURS, STANDALONE = "cloister audit verify", "verify.py"


@pytest.fixture(scope="module")
def tampered(tmp_path_factory: pytest.TempPathFactory) -> TamperedPack:
    """The pack; every change of it is taken back."""
    return make_tampered_pack(tmp_path_factory.mktemp("tampered"))


@dataclass(slots=True)
class Score:
    """How many changes of one kind were made, and how many of them each verifier found."""

    what: str
    done: int = 0
    found: dict[str, int] = field(default_factory=lambda: {OURS: 0, STANDALONE: 0})

    def add(self, done: int, ours: int, standalone: int) -> None:
        """Count a pass."""
        self.done += done
        self.found[OURS] += ours
        self.found[STANDALONE] += standalone

    def finish(self) -> None:
        """Write it down for the table, and demand all."""
        assert self.done
        for verifier, found in self.found.items():
            note(TamperRow(self.what, verifier, self.done, 0, found))
        assert set(self.found.values()) == {self.done}, self


def flip_leaves(tampered: TamperedPack, bits: Iterable[int]) -> Score:
    """One bit of the bytes of each entry at once; each entry must be named."""
    score = Score("pack: bit of an entry in its bundle")
    contents = {name: (tampered.pack / name).read_bytes() for name in BUNDLES}
    spans = [span for name in BUNDLES for span in spans_of_leaves(contents[name], width_of(name))]
    for bit in bits:
        hit = [index for index, (start, end) in enumerate(spans) if bit < 8 * (end - start)]
        changes = {
            name: flipped(contents[name], [8 * spans[index][0] + bit for index in hit if index // TILE_WIDTH == number])
            for number, name in enumerate(BUNDLES)
        }
        with tampered.changed(changes):
            ours, standalone = tampered.log_found()
        score.add(len(hit), len(ours & set(hit)), len(standalone & set(hit)))
    return score


def width_of(name: str) -> int:
    """Entries of a bundle or hashes of a tile."""
    return int(name.rpartition(".p/")[2]) if ".p/" in name else TILE_WIDTH


def flip_lengths(tampered: TamperedPack, places: Iterable[tuple[int, int]]) -> Score:
    """One bit of the length before an entry, in both bundles at once: what follows it moves."""
    score = Score("pack: bit of an entry's length in its bundle")
    contents = {name: (tampered.pack / name).read_bytes() for name in BUNDLES}
    spans = {name: spans_of_leaves(contents[name], width_of(name)) for name in BUNDLES}
    for offset, bit in places:
        changes, hit = {}, set()
        for number, name in enumerate(BUNDLES):
            if offset < len(spans[name]):
                changes[name] = flipped(contents[name], [8 * (spans[name][offset][0] - 2) + bit])
                hit.add(number * TILE_WIDTH + offset)
        with tampered.changed(changes):
            ours, standalone = tampered.log_found()
        score.add(len(hit), len(ours & hit), len(standalone & hit))
    return score


def flip_hashes(tampered: TamperedPack, bits: Iterable[int]) -> Score:
    """One bit of each hash of the tiles of level 0 at once; each must be named."""
    score = Score("pack: bit of a hash in a tile")
    contents = {name: (tampered.pack / name).read_bytes() for name in TILES}
    for bit in bits:
        changes = {name: flipped(contents[name], [256 * i + bit for i in range(width_of(name))]) for name in TILES}
        with tampered.changed(changes):
            ours, standalone = tampered.log_found()
        everywhere = set(range(NUM_LEAVES))
        score.add(NUM_LEAVES, len(ours & everywhere), len(standalone & everywhere))
    return score


def flip_log_file(tampered: TamperedPack, name: str, bits: Iterable[int]) -> Score:
    """One bit of a small file of the log, alone."""
    score = Score(f"pack: bit of {'the checkpoint' if name.endswith('checkpoint') else 'a hash in an upper tile'}")
    content = (tampered.pack / name).read_bytes()
    for bit in bits:
        with tampered.changed({name: flipped(content, [bit])}):
            ours, standalone = tampered.log_found()
        score.add(1, bool(ours), bool(standalone))
    return score


def flip_seal(tampered: TamperedPack, name: str, bits: Iterable[int]) -> Score:
    """One bit of the index, or of what seals it."""
    score = Score(f"pack: bit of {name}")
    content = (tampered.pack / name).read_bytes()
    for bit in bits:
        with tampered.changed({name: flipped(content, [bit])}):
            ours, standalone = tampered.seal_found()
        score.add(1, ours, standalone)
    return score


def flip_records(tampered: TamperedPack, name: str, bits: Iterable[int]) -> Score:
    """One bit of each line of records.jsonl, or of each row of records.csv, at once; each entry must be named."""
    score = Score(f"pack: bit of {'a line of JSONL' if name == 'records.jsonl' else 'a row of CSV'}, beside its digest")
    pieces = pieces_of(tampered, name)
    for bit in bits:
        reached = [bit < 8 * len(piece) for piece in pieces]
        hit = {index for index, is_hit in enumerate(reached[-NUM_LEAVES:]) if is_hit}
        changes = [flipped(piece, [bit]) if is_hit else piece for piece, is_hit in zip(pieces, reached, strict=True)]
        with tampered.changed({name: b"".join(changes)}):
            ours, standalone = tampered.records_found()
        score.add(len(hit), len(ours & hit), len(standalone & hit))
    return score


def pieces_of(tampered: TamperedPack, name: str) -> list[bytes]:
    """The lines of records.jsonl, or header and rows of records.csv: a row ends with its entry's hash."""
    lines = (tampered.pack / "records.jsonl").read_bytes().splitlines(keepends=True)
    if name == "records.jsonl":
        return lines
    table = (tampered.pack / name).read_bytes()
    position = table.index(b"\r\n") + 2
    rows = [table[:position]]
    for line in lines:
        end = table.index(f'"{leaf_hash(line[:-1]).hex()}"\r\n'.encode(), position) + 68
        rows.append(table[position:end])
        position = end
    assert position == len(table)
    return rows


def flip_sealed_file(folder: Path, name: str, content: bytes, bits: Iterable[int]) -> Score:
    """One bit of a file that the index covers, alone: the digest finds it, whatever the file is."""
    score, place = Score("pack: bit of a file that the index covers"), folder / "file"
    seal = seal_of(content)
    place.write_bytes(content)
    with place.open("r+b", buffering=0) as file:
        for bit in bits:
            file.seek(bit // 8)
            file.write(bytes([content[bit // 8] ^ 1 << bit % 8]))
            ours, standalone = file_found(folder, "file", seal)
            score.add(1, ours, standalone)
            file.seek(bit // 8)
            file.write(content[bit // 8 : bit // 8 + 1])
    assert file_found(folder, "file", seal) == (False, False), name
    return score


def all_bits(content: bytes) -> range:
    """Every bit of a file."""
    return range(8 * len(content))


def longest(pieces: Iterable[bytes]) -> int:
    """Bits of the longest."""
    return 8 * max(map(len, pieces))


def bits_of(tampered: TamperedPack, name: str) -> range:
    """Every bit that the longest line or row has."""
    return range(longest(pieces_of(tampered, name)))


LENGTHS = [(offset, bit) for offset in range(TILE_WIDTH) for bit in range(16)]
RECORDS = ("records.jsonl", "records.csv")
SMALL_LOG_FILES = ("tlog/checkpoint", "tlog/tile/1/000.p/1")


def sealed_files(pack: Path) -> Mapping[str, bytes]:
    """Every file that the index covers, but those of which each bit is flipped above."""
    files = (path.relative_to(pack).as_posix() for path in sorted(pack.rglob("*")) if path.is_file())
    elsewhere = {*SEAL_NAMES, *RECORDS, *BUNDLES}
    return {name: (pack / name).read_bytes() for name in files if name not in elsewhere}


# The suite: a few passes of each kind, and single flips judged by whole runs of both programs.


def drawn(bits: Iterable[object], seed: int) -> list[object]:
    """A few of them, the last always among them."""
    every = list(bits)
    return [*random.Random(seed).sample(every, min(NUM_DRAWN, len(every))), every[-1]]


def test_a_flipped_bit_of_an_entry_is_found_at_that_entry(tampered: TamperedPack) -> None:
    """Bytes, lengths and hashes, in every entry at once."""
    flip_leaves(tampered, drawn(range(bits_of(tampered, "records.jsonl").stop - 8), 1)).finish()
    flip_lengths(tampered, drawn(LENGTHS, 2)).finish()
    flip_hashes(tampered, drawn(range(256), 3)).finish()


@pytest.mark.parametrize("name", RECORDS)
def test_a_flipped_bit_of_a_record_is_found_at_its_entry(tampered: TamperedPack, name: str) -> None:
    """Lines and rows, in every entry at once."""
    flip_records(tampered, name, drawn(bits_of(tampered, name), 4)).finish()


@pytest.mark.parametrize("name", SMALL_LOG_FILES)
def test_a_flipped_bit_of_the_head_or_an_upper_tile_is_found(tampered: TamperedPack, name: str) -> None:
    """Alone."""
    flip_log_file(tampered, name, drawn(all_bits((tampered.pack / name).read_bytes()), 5)).finish()


@pytest.mark.parametrize("name", SEAL_NAMES)
def test_a_flipped_bit_of_the_seal_is_found(tampered: TamperedPack, name: str) -> None:
    """Index, entry, proof and growth."""
    flip_seal(tampered, name, drawn(all_bits((tampered.pack / name).read_bytes()), 6)).finish()


def test_a_flipped_bit_of_any_file_fails_the_whole_pack_for_both(tampered: TamperedPack) -> None:
    """Whole runs of both programs: every file of the pack, of the single proofs a few."""
    draw = random.Random(7)
    files = [path for path in sorted(tampered.pack.rglob("*")) if path.is_file()]
    proofs = [path for path in files if path.parent.name == "proofs"]
    for path in [*(path for path in files if path not in proofs), *draw.sample(proofs, 4)]:
        name, content = path.relative_to(tampered.pack).as_posix(), path.read_bytes()
        with tampered.changed({name: flipped(content, [draw.randrange(8 * len(content))])}):
            assert judge(tampered.pack, SIGNER.verifier).passed == (False, False), name
    assert judge(tampered.pack, SIGNER.verifier).passed == (True, True)


def test_a_flipped_bit_of_a_sealed_file_changes_its_digest(tampered: TamperedPack, tmp_path: Path) -> None:
    """As the long lane does it, for the smallest files whole."""
    smallest = sorted(sealed_files(tampered.pack).items(), key=lambda item: len(item[1]))[:2]
    for name, content in smallest:
        flip_sealed_file(tmp_path, name, content, islice(all_bits(content), 400)).finish()


# The long lane: all of it.


def chunk(items: Iterable[int], number: int) -> Iterator[int]:
    """Every eighth."""
    return islice(items, number, None, NUM_CHUNKS)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(NUM_CHUNKS))
def test_every_bit_of_every_entry_length_and_hash(tampered: TamperedPack, number: int) -> None:
    """Each found at its place by both."""
    flip_leaves(tampered, chunk(range(bits_of(tampered, "records.jsonl").stop - 8), number)).finish()
    flip_lengths(tampered, islice(LENGTHS, number, None, NUM_CHUNKS)).finish()
    flip_hashes(tampered, chunk(range(256), number)).finish()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(NUM_CHUNKS))
@pytest.mark.parametrize("name", RECORDS)
def test_every_bit_of_every_record(tampered: TamperedPack, name: str, number: int) -> None:
    """Each found at its entry by both."""
    flip_records(tampered, name, chunk(bits_of(tampered, name), number)).finish()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL_LOG_FILES, *SEAL_NAMES])
def test_every_bit_of_the_head_and_of_the_seal(tampered: TamperedPack, name: str) -> None:
    """Each found alone by both."""
    flip = flip_log_file if name in SMALL_LOG_FILES else flip_seal
    flip(tampered, name, all_bits((tampered.pack / name).read_bytes())).finish()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(NUM_CHUNKS))
def test_every_bit_of_every_sealed_file(tampered: TamperedPack, tmp_path: Path, number: int) -> None:
    """Each found alone by both."""
    for name, content in sealed_files(tampered.pack).items():
        flip_sealed_file(tmp_path, name, content, chunk(all_bits(content), number)).finish()
