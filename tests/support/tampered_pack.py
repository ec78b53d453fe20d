"""A pack of 500 entries to tamper with, and what its two verifiers say of a part of it.

A pass changes one bit in each entry (or file) at once and demands that each is named by its own number: that a change
is found beside hundreds of others is no less than that it is found alone, which a sample shows as well.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from evidence_packs import PAIRING, SIGNER, build_mixed_log, make_pack
from two_verifiers import STANDALONE

from audit.evidence.check import check_files, check_seal, check_views
from audit.evidence.index import FileSeal, PackIndex
from audit.evidence.tile_log import TileLog
from audit.report import FindingList
from audit.tiles import decode_bundle
from audit.verify import verify_log

NUM_LEAVES = 500
TILE_WIDTH = 256
BUNDLES = ("tlog/tile/entries/000", "tlog/tile/entries/001.p/244")
TILES = ("tlog/tile/0/000", "tlog/tile/0/001.p/244")
KEYS = [STANDALONE.read_key(SIGNER.verifier.vkey)]
Found = set[int | None]


@dataclass(frozen=True, slots=True)
class TamperedPack:
    """Two folders: the pack, and its log alone, so that the log is judged without the seal's help."""

    pack: Path
    bare: Path

    @contextmanager
    def changed(self, contents: Mapping[str, bytes]) -> Iterator[None]:
        """Put other bytes into files, of both folders where both have them, for the length of a block."""
        places = [root / name for name in contents for root in (self.pack, self.bare) if (root / name).exists()]
        before = {place: place.read_bytes() for place in places}
        try:
            for place in places:
                root = self.pack if place.is_relative_to(self.pack) else self.bare
                place.write_bytes(contents[place.relative_to(root).as_posix()])
            yield
        finally:
            for place, content in before.items():
                place.write_bytes(content)

    def log_found(self) -> tuple[Found, Found]:
        """Where each verifier finds the log wrong, the seal aside."""
        report = verify_log(self.bare / "tlog", [SIGNER.verifier], PAIRING)
        found = STANDALONE.verify(self.bare, KEYS, [])[1]
        return {finding.index for finding in report.findings}, {at for at, where, _ in found if where != "index.json"}

    def seal_found(self) -> tuple[bool, bool]:
        """Whether each verifier refuses the seal."""
        findings = FindingList()
        check_seal(self.pack, [SIGNER.verifier], findings)
        try:
            STANDALONE.open_seal(self.pack, KEYS)
            standalone = bool(STANDALONE.verify(self.pack, KEYS, [])[1])
        except STANDALONE.UNSOUND:
            standalone = True
        return bool(findings.findings), standalone

    def records_found(self) -> tuple[Found, Found]:
        """At which entries each verifier finds records.jsonl or records.csv wrong."""
        names = ("records.jsonl", "records.csv")
        findings = FindingList()
        log, index = TileLog(self.pack / "tlog", [SIGNER.verifier]), (self.pack / "index.json").read_bytes()
        check_views(self.pack, log, PackIndex.from_bytes(index), findings)
        ours = {finding.index for finding in findings.findings if finding.where in names}
        return ours - {None}, {at for at, where, _ in STANDALONE.verify(self.pack, KEYS, [])[1] if where in names} - {
            None
        }


def make_tampered_pack(folder: Path) -> TamperedPack:
    """Build it."""
    attachment = folder / "policy.cedar"
    attachment.write_text("permit (principal, action, resource);\n")
    build_mixed_log(folder / "audit.db", NUM_LEAVES)
    make_pack(folder / "audit.db", folder / "pack", attachments={"trust/root.1.json": attachment})
    bare = folder / "bare"
    bare.mkdir()
    shutil.copytree(folder / "pack" / "tlog", bare / "tlog")
    return TamperedPack(folder / "pack", bare)


def flipped(content: bytes, bits: list[int]) -> bytes:
    """Change these bits, counted from the first byte's lowest."""
    changed = bytearray(content)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def spans_of_leaves(bundle: bytes, width: int) -> list[tuple[int, int]]:
    """Start and end of each entry's bytes in a bundle; its two bytes of length stand before."""
    spans, position = [], 0
    for leaf in decode_bundle(bundle, width)[0]:
        spans.append((position + 2, position + 2 + len(leaf)))
        position += 2 + len(leaf)
    return spans


def file_found(folder: Path, name: str, seal: FileSeal) -> tuple[bool, bool]:
    """Whether each verifier finds the one file in a folder to be another than the sealed one."""
    findings = FindingList()
    check_files(folder, {name: seal}, findings)
    standalone: list[object] = []
    listed = {name: {"sha256": seal.sha256, "size": seal.size}}
    STANDALONE.check_files(folder, listed, lambda *finding: standalone.append(finding))
    return bool(findings.findings), bool(standalone)


def seal_of(content: bytes) -> FileSeal:
    """What an index says of a file."""
    return FileSeal(len(content), sha256(content).hexdigest())
