"""Two copies of one log, leaf by leaf: the first entry at which they are not the same.

It compares bytes and says nothing of who is right: each copy's own verification does that.  What one of them has pruned
cannot be compared any more; from which entry on it was, stands in the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from sqlalchemy import select

from audit.checkpoint import Checkpoint, split_note
from audit.errors import AuditCorrupt, LogMissing, LogUnusable, ProofRefused
from audit.faults import naming_file
from audit.location import LogLocation
from audit.schema import leaf_table
from audit.store import newest_checkpoint, open_copy, require_kinds, snapshot, stored_floors
from audit.tiles import CHECKPOINT_NAME, LOG_FOLDER, TILE_WIDTH, Tile, decode_bundle

_ROWS_PER_FETCH = 1_024


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two copies, held against one another."""

    first_difference: int | None
    """First entry that is not the same in both, or that only one of them has; None where there is none."""
    one_is_longer: bool
    """Nothing differs there: one copy only goes on where the other ends."""
    compared_from: int
    """Entries before this one are pruned in one of the copies."""


def compare_copies(one: LogLocation, other: LogLocation) -> Comparison:
    """Hold two copies of a log against one another: databases, or exported folders.

    Raises:
        LogMissing: there is nothing at one of the places.
        LogUnusable: the machine refuses one of them.
        AuditCorrupt: one of them cannot be read to its end.
    """
    start = max(_floor(one), _floor(other))
    pairs = zip_longest(_leaves(one, start), _leaves(other, start))
    for index, (left, right) in enumerate(pairs, start=start):
        if left != right:
            return Comparison(index, left is None or right is None, start)
    return Comparison(None, one_is_longer=False, compared_from=start)


def head_note_of(copy: LogLocation) -> str:
    """Return the newest head that a copy holds, as signed; verifies nothing."""
    if isinstance(copy, Path) and copy.is_dir():
        return (_log_folder(copy) / CHECKPOINT_NAME).read_bytes().decode()
    engine = open_copy(copy)
    try:
        with snapshot(engine, copy) as connection:
            return newest_checkpoint(connection)[2]
    finally:
        engine.dispose()


def _floor(copy: LogLocation) -> int:
    if isinstance(copy, Path) and copy.is_dir():
        size = _size_of_pack(copy)
        starts = (start for start in range(0, size, TILE_WIDTH) if _bundle(copy, start, size).is_file())
        return next(starts, size)
    if isinstance(copy, Path) and not copy.is_file():
        raise LogMissing(copy)
    engine = open_copy(copy)
    try:
        with snapshot(engine, copy) as connection:
            return stored_floors(connection).leaf
    finally:
        engine.dispose()


def _leaves(copy: LogLocation, start: int) -> Iterator[bytes]:
    if isinstance(copy, Path) and copy.is_dir():
        return _leaves_of_pack(copy, start)
    return _leaves_of_database(copy, start)


def _leaves_of_database(copy: LogLocation, start: int) -> Iterator[bytes]:
    with naming_file(copy, LogUnusable):
        engine = open_copy(copy)
        try:
            with snapshot(engine, copy) as connection:
                query = select(leaf_table.c.idx, leaf_table.c.leaf_bytes).where(leaf_table.c.idx >= start)
                rows = connection.execute(query.order_by(leaf_table.c.idx).execution_options(yield_per=_ROWS_PER_FETCH))
                for expected, (index, leaf_bytes) in enumerate(rows, start=start):
                    require_kinds(index, (leaf_bytes, bytes))
                    if index != expected:
                        raise AuditCorrupt(expected, "this entry is missing", path=copy)
                    yield leaf_bytes
        finally:
            engine.dispose()


def _leaves_of_pack(folder: Path, start: int) -> Iterator[bytes]:
    size = _size_of_pack(folder)
    for first in range(start // TILE_WIDTH * TILE_WIDTH, size, TILE_WIDTH):
        leaves, broken = decode_bundle(_bundle(folder, first, size).read_bytes(), min(TILE_WIDTH, size - first))
        yield from leaves[max(0, start - first) :]
        if broken is not None:
            raise AuditCorrupt(first + len(leaves), broken, path=folder)


def _bundle(folder: Path, start: int, size: int) -> Path:
    return _log_folder(folder) / Tile(None, start // TILE_WIDTH, min(TILE_WIDTH, size - start)).path


def _size_of_pack(folder: Path) -> int:
    try:
        return Checkpoint.from_text(split_note(head_note_of(folder))[0]).size
    except (ProofRefused, UnicodeDecodeError) as error:
        raise AuditCorrupt(None, f"its checkpoint is malformed: {error}", path=folder) from error


def _log_folder(folder: Path) -> Path:
    return folder / LOG_FOLDER if (folder / LOG_FOLDER).is_dir() else folder
