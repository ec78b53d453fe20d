"""Write a log as a folder that any C2SP tlog verifier reads.

    OUT/log.vkey              the public key, for convenience: an auditor uses the copy that came another way
    OUT/tlog/checkpoint       the signed head
    OUT/tlog/tile/L/N[.p/W]   hashes
    OUT/tlog/tile/entries/N   leaves
    OUT/anchors/*.checkpoint  heads that witnesses cosigned, where there are some

Promise: the folder appears whole or not at all, and shows one consistent state while appending goes on.  It copies what
is stored; whether that is sound is the verifier's business.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import Connection, select

from audit.anchoring.head import CHECKPOINT_SUFFIX
from audit.checkpoint import Checkpoint, LogVerifier, open_checkpoint, split_note
from audit.errors import AuditCorrupt, LogExists
from audit.location import LogLocation
from audit.schema import leaf_table, node_table
from audit.store import newest_checkpoint, open_engine, require_kinds, snapshot, stored_floors
from audit.tiles import (
    ANCHORS_FOLDER,
    CHECKPOINT_NAME,
    LOG_FOLDER,
    TILE_HEIGHT,
    TILE_WIDTH,
    VKEY_NAME,
    Tile,
    encode_bundle,
    tiles_of,
)


def export_log(
    location: LogLocation,
    folder: Path,
    verifier: LogVerifier,
    *,
    earlier: Sequence[LogVerifier] = (),
    anchors: Path | None = None,
) -> Checkpoint:
    """Write the log at `location` into a new `folder`; return the checkpoint that it shows.

    Args:
        location: the log.
        folder: does not exist yet.
        verifier: the log's public key; its text form goes along.
        earlier: keys that the log had before; one of them goes along instead where it alone signed the head.
        anchors: a folder with cosigned heads that go along as they are, if it exists.
    """
    if folder.exists():
        raise LogExists(folder)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    draft.mkdir(mode=0o700, parents=True)
    try:
        checkpoint = _write_log(location, draft, [verifier, *earlier])
        for path in sorted(anchors.glob(f"*{CHECKPOINT_SUFFIX}")) if anchors is not None else ():
            _write(draft / ANCHORS_FOLDER / path.name, path.read_bytes())
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft)
        raise
    return checkpoint


def _write_log(location: LogLocation, folder: Path, verifiers: Sequence[LogVerifier]) -> Checkpoint:
    engine = open_engine(location, read_only=True)
    try:
        with snapshot(engine, location) as connection:
            _, _, note = newest_checkpoint(connection)
            checkpoint = open_checkpoint(note, verifiers)
            for tile in tiles_of(checkpoint.size, stored_floors(connection).leaf):
                _write(folder / LOG_FOLDER / tile.path, _content(connection, tile))
    finally:
        engine.dispose()
    _write(folder / LOG_FOLDER / CHECKPOINT_NAME, note.encode())
    signed_by = {(name, key_id) for name, key_id, _ in split_note(note)[1]}
    signer = next(one for one in verifiers if (one.name, one.key_id) in signed_by)
    _write(folder / VKEY_NAME, (signer.vkey + "\n").encode())
    return checkpoint


def _content(connection: Connection, tile: Tile) -> bytes:
    items = list(_items(connection, tile))
    if len(items) != tile.width:
        raise AuditCorrupt(None, f"{tile.path} needs {tile.width} rows, {len(items)} are stored")
    return encode_bundle(items) if tile.level is None else b"".join(items)


def _items(connection: Connection, tile: Tile) -> Iterator[bytes]:
    first = tile.index * TILE_WIDTH
    last = first + tile.width - 1
    if not tile.level:
        column = leaf_table.c.leaf_bytes if tile.level is None else leaf_table.c.leaf_hash
        query = select(column).where(leaf_table.c.idx.between(first, last)).order_by(leaf_table.c.idx)
    else:
        on_level = (node_table.c.level == tile.level * TILE_HEIGHT, node_table.c.idx.between(first, last))
        query = select(node_table.c.hash).where(*on_level).order_by(node_table.c.idx)
    for offset, item in enumerate(connection.execute(query).scalars()):
        require_kinds(first + offset if not tile.level else None, (item, bytes))
        yield item


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
