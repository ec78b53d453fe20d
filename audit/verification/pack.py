"""Verify an exported folder: files and a public key, no database.

Block by block of 256 leaves: the leaves' own hashes against the level-0 tile; where they differ, the hash of the block
one level up (or, in the last block, the signed root) says which side was altered.  Every tile is computed again, the
root is compared with the signed one, and believed leaves go through the same checks as in a database.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from audit.anchoring.evidence import Anchor
from audit.beside import described_floor
from audit.checkpoint import Checkpoint, LogVerifier, open_checkpoint
from audit.errors import ProofRefused
from audit.event import Floor, Pruned
from audit.leaf import decode_leaf
from audit.merkle import EMPTY_EDGE, Node, RightEdge, leaf_hash, tree_root
from audit.pairing import Pairing
from audit.report import FindingList, Place, Report
from audit.tiles import (
    CHECKPOINT_NAME,
    LOG_FOLDER,
    TILE_HEIGHT,
    TILE_WIDTH,
    VKEY_NAME,
    Tile,
    decode_bundle,
    decode_hashes,
    tiles_of,
)
from audit.verification.disagreements import ways_to_settle
from audit.verification.known_heads import KnownHeads
from audit.verification.leaf_checks import LeafChecks


def verify_pack(
    folder: Path,
    verifiers: Sequence[LogVerifier],
    pairing: Pairing | None,
    *,
    anchors: Sequence[Anchor],
    clock_limit_us: int,
) -> Report:
    """Return every contradiction in an exported log; see `verify.verify_log`."""
    findings = FindingList()
    known = KnownHeads(anchors, verifiers, findings)
    checks = LeafChecks(pairing, clock_limit_us, findings)
    log = folder / LOG_FOLDER if (folder / LOG_FOLDER).is_dir() else folder
    walk = _Walk(log, findings, known, checks)
    special = special_files(folder)
    for name in special:
        findings.add(Place.FILE, None, "this is neither a file nor a folder", where=name)
    head = None if special else _read_head(log, verifiers, findings)
    if head is not None:
        walk.run(head)
    return Report(
        source=str(folder),
        num_leaves=walk.num_leaves,
        num_checkpoints=0 if head is None else 1,
        head_size=None if head is None else head.size,
        head_root=None if head is None else head.root.hex(),
        findings=tuple(findings.findings),
        findings_left_out=findings.left_out,
        unfinished=checks.unfinished,
        notes=tuple(checks.notes),
    )


def special_files(folder: Path) -> list[str]:
    """Name every pipe, socket and device in a folder: reading one may never end, so nothing there is read."""
    found = (path for path in folder.rglob("*") if path.exists() and not path.is_file() and not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _read_head(log: Path, verifiers: Sequence[LogVerifier], findings: FindingList) -> Checkpoint | None:
    try:
        return open_checkpoint((log / CHECKPOINT_NAME).read_bytes().decode(), verifiers)
    except OSError as error:
        findings.add(Place.FILE, None, f"cannot be read: {error.strerror}", where=CHECKPOINT_NAME)
    except (ProofRefused, UnicodeDecodeError) as error:
        findings.add(Place.CHECKPOINT_SIGNATURE, None, str(error), where=CHECKPOINT_NAME)
    return None


def _records(leaf_bytes: bytes, floor: Floor) -> bool:
    try:
        return described_floor(decode_leaf(leaf_bytes).event) == floor
    except ProofRefused:
        return False


@dataclass(frozen=True, slots=True)
class _Block:
    """Up to 256 leaves with both accounts of their hashes; None where that side cannot be read."""

    start: int
    leaves: list[bytes | None]
    computed: list[bytes | None]
    stored: list[bytes | None]
    where: str
    parent: bytes | None
    """The block's own hash as the level-1 tile has it; None for the last, partial block."""

    def doubtful(self) -> list[int]:
        """Positions where the two accounts differ."""
        pairs = zip(self.computed, self.stored, strict=True)
        return [position for position, (computed, stored) in enumerate(pairs) if computed != stored]

    def choices(self) -> Iterator[tuple[list[bytes], set[int]]]:
        """Every way to settle the differences: the hashes, and the positions whose bytes were altered."""
        doubtful = self.doubtful()
        both = [position for position in doubtful if self.computed[position] and self.stored[position]]
        for altered in ways_to_settle(len(both)):
            taken = dict(zip(both, altered, strict=True))
            hashes: list[bytes] = []
            for position, (computed, stored) in enumerate(zip(self.computed, self.stored, strict=True)):
                digest = stored if taken.get(position, computed is None) else computed
                if digest is None:
                    return
                hashes.append(digest)
            yield hashes, {position for position in doubtful if taken.get(position, self.computed[position] is None)}


class _Walk:
    def __init__(self, log: Path, findings: FindingList, known: KnownHeads, checks: LeafChecks) -> None:
        self._log = log
        self._findings = findings
        self._known = known
        self._checks = checks
        self.num_leaves = 0

    def run(self, head: Checkpoint) -> None:
        """Check every file that the head implies, and that there is no other."""
        floor = self._recorded_floor(head.size)
        self._report_surplus_files(head.size, floor)
        upper = self._read_upper_tiles(head.size)
        self._known.compare(0, EMPTY_EDGE.root())
        edge = self._begin_at(floor, upper)
        for start in range(floor, head.size, TILE_WIDTH):
            block = self._read_block(start, min(TILE_WIDTH, head.size - start), upper)
            edge = self._check_block(edge, block, head, upper)
        if edge is not None and edge.root() != head.root:
            self._findings.add(Place.CHECKPOINT_ROOT, head.size, "the entries do not lead to the signed root")
        self._known.finish(head.size)

    def _recorded_floor(self, size: int) -> int:
        """Return below which entry nothing is there because a leaf says so; 0 where none does.

        Files that are missing without such a leaf are missing files.
        """
        bundles = [tile for tile in tiles_of(size) if tile.level is None]
        present = (tile for tile in bundles if self._is_there(tile) or self._is_there(replace(tile, level=0)))
        first = next(present, bundles[0] if bundles else Tile(None, 0, 0))
        floor = Floor(Pruned.LEAF, first.index * TILE_WIDTH)
        needle = f'"minimum_index":{floor.minimum_index},'.encode()
        for tile in bundles[first.index :] if floor.minimum_index else ():
            content = (self._log / tile.path).read_bytes() if self._is_there(tile) else b""
            if needle in content and any(_records(leaf, floor) for leaf in decode_bundle(content, tile.width)[0]):
                return floor.minimum_index
        return 0

    def _is_there(self, tile: Tile) -> bool:
        return (self._log / tile.path).is_file()

    def _begin_at(self, floor: int, upper: dict[tuple[int, int], bytes]) -> RightEdge | None:
        """Begin with the hashes that stand for what was pruned; the signed root proves them."""
        if not floor:
            return EMPTY_EDGE
        self._checks.floor = floor
        self._checks.notes.append(f"entries below {floor} were pruned by a recorded act")
        for size in self._known.leave_below(floor):
            self._checks.notes.append(f"the known checkpoint of size {size} lies among pruned entries")
        blocks = [upper.get((1, number)) for number in range(floor // TILE_WIDTH)]
        known = [digest for digest in blocks if digest is not None]
        if len(known) < len(blocks):
            return None
        over_blocks, nodes = EMPTY_EDGE.append(known)
        self._compare_upper([Node(node.level + TILE_HEIGHT, node.index, node.digest) for node in nodes], upper)
        return RightEdge(floor, over_blocks.peaks)

    def _check_block(
        self, edge: RightEdge | None, block: _Block, head: Checkpoint, upper: dict[tuple[int, int], bytes]
    ) -> RightEdge | None:
        """Settle one block, compare the tiles above it, check its leaves; return the tree with it, if it is known."""
        settled = self._settle(edge, block, head)
        altered = set(block.doubtful()) if settled is None else settled[1]
        for position in block.doubtful():
            self._name_altered(block, position, is_altered=position in altered)
        end = block.start + len(block.leaves)
        if settled is None or edge is None:
            edge = None
            self._known.pass_over(end)
        else:
            hashes = settled[0]
            while (size := self._known.next_size()) is not None and size <= end:
                self._known.compare(size, edge.append(hashes[: size - block.start])[0].root())
            edge, completed = edge.append(hashes)
            self._compare_upper(completed, upper)
        for position, leaf_bytes in enumerate(block.leaves):
            self._check_leaf(block, position, None if position in altered else leaf_bytes)
        return edge

    def _settle(self, edge: RightEdge | None, block: _Block, head: Checkpoint) -> tuple[list[bytes], set[int]] | None:
        """Return the hashes to go on with and which bytes were altered, or None if nothing fits."""
        choices = list(block.choices())
        if len(choices) == 1 and not block.doubtful():
            return choices[0]
        for hashes, altered in choices:
            if block.parent is not None and tree_root(hashes) == block.parent:
                return hashes, altered
            is_last = block.start + len(hashes) == head.size
            if is_last and edge is not None and edge.append(hashes)[0].root() == head.root:
                return hashes, altered
        return None

    def _name_altered(self, block: _Block, position: int, *, is_altered: bool) -> None:
        index = block.start + position
        if block.computed[position] is None or block.stored[position] is None:
            return  # the file that cannot be read was named already
        if is_altered:
            what = "the bytes are not those that were signed"
            self._findings.add(Place.ENTRY_BUNDLE, index, what, where=self._bundle(block).path)
        else:
            self._findings.add(Place.TILE, index, "the hash is not that of the signed bytes", where=block.where)

    def _compare_upper(self, completed: Sequence[Node], upper: dict[tuple[int, int], bytes]) -> None:
        for node in completed:
            level, rest = divmod(node.level, TILE_HEIGHT)
            stored = upper.get((level, node.index))
            if rest or stored is None:
                continue
            if stored != node.digest:
                start = node.index << node.level
                place = f"tile level {level}, hash {node.index}"
                self._findings.add(Place.TILE, start, "the hash is not that of the entries below it", where=place)

    def _check_leaf(self, block: _Block, position: int, leaf_bytes: bytes | None) -> None:
        index = block.start + position
        if leaf_bytes is None:
            self._checks.skip(None)
            return
        self.num_leaves += 1
        try:
            leaf = decode_leaf(leaf_bytes)
        except ProofRefused as error:
            self._findings.add(Place.ENTRY_BUNDLE, index, error.what, where=self._bundle(block).path)
            self._checks.skip(None)
            return
        self._checks.accept(index, leaf)

    def _read_block(self, start: int, width: int, upper: dict[tuple[int, int], bytes]) -> _Block:
        number = start // TILE_WIDTH
        leaves: list[bytes | None] = [None] * width
        bundle = Tile(None, number, width)
        content = self._read(bundle)
        if content is not None:
            parsed, broken = decode_bundle(content, width)
            leaves[: len(parsed)] = parsed
            if broken is not None:
                self._findings.add(Place.ENTRY_BUNDLE, start + len(parsed), broken, where=bundle.path)
        tile = Tile(0, number, width)
        return _Block(
            start=start,
            leaves=leaves,
            computed=[None if leaf is None else leaf_hash(leaf) for leaf in leaves],
            stored=self._read_hashes(tile),
            where=tile.path,
            parent=upper.get((1, number)),
        )

    def _read_upper_tiles(self, size: int) -> dict[tuple[int, int], bytes]:
        """Hashes of the tiles above level 0, by tile level and index: one for each 256 leaves."""
        upper: dict[tuple[int, int], bytes] = {}
        for tile in tiles_of(size):
            if tile.level:
                for position, digest in enumerate(self._read_hashes(tile)):
                    if digest is not None:
                        upper[tile.level, tile.index * TILE_WIDTH + position] = digest
        return upper

    def _read_hashes(self, tile: Tile) -> list[bytes | None]:
        content = self._read(tile)
        if content is None:
            return [None] * tile.width
        try:
            return list(decode_hashes(content, tile.width))
        except ProofRefused as error:
            self._findings.add(Place.TILE, None, error.what, where=tile.path)
            return [None] * tile.width

    def _read(self, tile: Tile) -> bytes | None:
        try:
            return (self._log / tile.path).read_bytes()
        except OSError as error:
            self._findings.add(Place.FILE, None, f"cannot be read: {error.strerror}", where=tile.path)
            return None

    def _report_surplus_files(self, size: int, floor: int) -> None:
        expected = {CHECKPOINT_NAME, VKEY_NAME, *(tile.path for tile in tiles_of(size, floor))}
        for path in sorted(self._log.rglob("*")):
            name = path.relative_to(self._log).as_posix()
            if not path.is_dir() and name not in expected:
                self._findings.add(Place.FILE, None, "this file belongs to no log of this size", where=name)

    def _bundle(self, block: _Block) -> Tile:
        return Tile(None, block.start // TILE_WIDTH, len(block.leaves))
