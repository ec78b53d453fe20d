"""An exported log as leaves and complete nodes, read from its tiles.

It reads what the export wrote, after the verifier has been over it; a file that is not as it should be is corrupt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from audit.checkpoint import LogVerifier, open_checkpoint
from audit.errors import AuditCorrupt
from audit.merkle import inclusion_proof, tree_root
from audit.proof import EntryProof
from audit.tiles import CHECKPOINT_NAME, TILE_HEIGHT, TILE_WIDTH, Tile, decode_bundle, decode_hashes, tiles_of

_TILES_KEPT = 64


class TileLog:
    """One exported log."""

    def __init__(self, folder: Path, verifiers: Sequence[LogVerifier]) -> None:
        self._folder = folder
        self._hashes = lru_cache(maxsize=_TILES_KEPT)(self._read_hashes)
        self._leaves = lru_cache(maxsize=1)(self._read_leaves)
        self.note = (folder / CHECKPOINT_NAME).read_bytes().decode()
        self.head = open_checkpoint(self.note, verifiers)
        bundles = (tile for tile in tiles_of(self.head.size) if tile.level is None)
        present = (tile.index * TILE_WIDTH for tile in bundles if (folder / tile.path).exists())
        self.minimum_index = next(present, 0)
        """Entries below it were pruned; that a leaf says so is the verifier's business."""

    def leaves(self) -> Iterator[tuple[int, bytes]]:
        """Yield every entry that is there, in order."""
        for start in range(self.minimum_index, self.head.size, TILE_WIDTH):
            yield from enumerate(self._read_leaves(start), start)

    def leaf(self, index: int) -> bytes:
        """Return one entry; asked for in order, each file is read once."""
        return self._leaves(index - index % TILE_WIDTH)[index % TILE_WIDTH]

    def proof(self, index: int) -> EntryProof:
        """Prove that the leaf at `index` is in the tree of the checkpoint."""
        return EntryProof(index, tuple(inclusion_proof(self.node, index, self.head.size)), self.note)

    def node(self, level: int, index: int) -> bytes:
        """Return one complete node."""
        tile_level, height = divmod(level, TILE_HEIGHT)
        number, offset = divmod(index << height, TILE_WIDTH)
        return tree_root(self._hashes(tile_level, number)[offset : offset + (1 << height)])

    def _read_leaves(self, start: int) -> list[bytes]:
        tile = Tile(None, start // TILE_WIDTH, min(TILE_WIDTH, self.head.size - start))
        leaves, broken = decode_bundle((self._folder / tile.path).read_bytes(), tile.width)
        if broken is not None:
            raise AuditCorrupt(start + len(leaves), broken, path=self._folder / tile.path)
        return leaves

    def _read_hashes(self, level: int, number: int) -> list[bytes]:
        width = min(TILE_WIDTH, (self.head.size >> TILE_HEIGHT * level) - number * TILE_WIDTH)
        tile = Tile(level, number, width)
        return decode_hashes((self._folder / tile.path).read_bytes(), width)
