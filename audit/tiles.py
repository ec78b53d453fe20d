"""Paths and bytes of C2SP tlog-tiles: a folder that is a log.

Pure.  A tile of level L holds up to 256 complete nodes of tree level 8L; an entry bundle holds the leaves of a tile of
level 0, each behind its length as a big-endian uint16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from audit.errors import ProofRefused
from audit.event import MAX_LEAF_BYTES
from audit.merkle import HASH_BYTES

TILE_WIDTH = 256
TILE_HEIGHT = 8
CHECKPOINT_NAME = "checkpoint"
LOG_FOLDER = "tlog"
"""Where an exported folder has the log, beside the public key."""
ANCHORS_FOLDER = "anchors"
"""Where an exported folder has the heads that witnesses cosigned."""
VKEY_NAME = "log.vkey"
_LENGTH_BYTES = 2


@dataclass(frozen=True, slots=True)
class Tile:
    """One resource of the layout; `level` None means an entry bundle."""

    level: int | None
    index: int
    width: int

    @property
    def path(self) -> str:
        """Path below the log's folder: `tile/<L>/<N>[.p/<W>]`, with N in groups of three digits."""
        groups = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            groups.insert(0, f"x{rest % 1000:03d}")
            rest //= 1000
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{'entries' if self.level is None else self.level}/{'/'.join(groups)}{partial}"


def tiles_of(size: int, minimum_index: int = 0) -> Iterator[Tile]:
    """Every resource that a tree of `size` leaves needs, bundles first, then level by level.

    Where entries below `minimum_index` were pruned, their bundles and their tiles of level 0 are gone; all above stays.
    """
    yield from _row(None, size, minimum_index)
    level, width = 0, size
    while width:
        yield from _row(level, width, 0 if level else minimum_index)
        level, width = level + 1, width // TILE_WIDTH


def encode_bundle(leaves: Sequence[bytes]) -> bytes:
    """Join leaves into an entry bundle."""
    return b"".join(len(leaf).to_bytes(_LENGTH_BYTES, "big") + leaf for leaf in leaves)


def decode_bundle(bundle: bytes, width: int) -> tuple[list[bytes], str | None]:
    """Return the leaves up to the first contradiction, and what it was."""
    leaves: list[bytes] = []
    position = 0
    while len(leaves) < width:
        start = position + _LENGTH_BYTES
        end = start + int.from_bytes(bundle[position:start], "big")
        if start > len(bundle) or end > len(bundle):
            return leaves, f"the bundle ends within entry {len(leaves)} of {width}"
        leaves.append(bundle[start:end])
        position = end
    if position != len(bundle):
        return leaves, f"{len(bundle) - position} bytes follow the last entry"
    return leaves, None


def decode_hashes(tile: bytes, width: int) -> list[bytes]:
    """Split a hash tile."""
    if len(tile) != width * HASH_BYTES:
        raise ProofRefused(f"a tile of width {width} has {width * HASH_BYTES} bytes, this one {len(tile)}")
    return [tile[start : start + HASH_BYTES] for start in range(0, len(tile), HASH_BYTES)]


def _row(level: int | None, num_items: int, first_item: int) -> Iterator[Tile]:
    for index in range(first_item // TILE_WIDTH, num_items // TILE_WIDTH):
        yield Tile(level, index, TILE_WIDTH)
    if num_items % TILE_WIDTH:
        yield Tile(level, num_items // TILE_WIDTH, num_items % TILE_WIDTH)


assert MAX_LEAF_BYTES < 1 << (8 * _LENGTH_BYTES)
