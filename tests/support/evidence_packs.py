"""Builds logs with a little of everything, and sealed evidence packs of them, without an appliance."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from audit_log_builder import PAIRING as UNLINKED
from audit_log_builder import SIGNER, START_US, build_log, make_event

from audit.checkpoint import LogSigner
from audit.event import Event
from audit.evidence.build import DraftFacts, PackOrder, Seal, drafting, seal_pack, write_pack
from audit.evidence.index import Selection
from audit.location import LogLocation
from audit.merkle import EMPTY_EDGE, leaf_hash
from audit.reader import AuditReader
from audit.tiles import TILE_WIDTH, encode_bundle, tiles_of
from audit.verify import DEFAULT_CLOCK_LIMIT_US
from audit.writer import AuditWriter, WriterConfig

ALWAYS = ("appliance:started", "evidence:started", "policy:loaded")
EVERYTHING = Selection()
PAIRING = dataclasses.replace(UNLINKED, opening_index_fact="admitted_index")
DENYING = ("label-within-clearance", "developer-hours", 'site."quoted", =cmd')
HOSTILE = ("=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\tx", "a;=1+1", 'b"c\r\n=2', "\uff1d1", "plain", "ümlaut")


def mixed_events(num_events: int, started_at: int = 1) -> list[Event]:
    """Requests of every outcome over some days, denials, loads, and text that a spreadsheet would run."""
    events: list[Event] = []
    number = 0

    def add(kind: str, subject: str, **facts: object) -> None:
        position = len(events)
        event = make_event(position, kind, subject, **facts)
        # Each event a quarter of an hour after the last, by both clocks.
        moved = position * 900_000_000
        events.append(
            dataclasses.replace(
                event,
                ts_us=START_US + moved,
                monotonic_ns=5_000_000_000 + moved * 1_000,
                actor=HOSTILE[position % len(HOSTILE)],
            )
        )

    add("appliance:started", "appliance", trust="development")
    while len(events) < started_at:
        add("log:read", f"read-{len(events)}")
    add("evidence:started", "pack-1", from_index=0)
    while len(events) < num_events:
        number += 1
        room = num_events - len(events)
        if number % 7 == 0 or room == 1:
            ids = [DENYING[number % 3]] if number % 2 else []
            add("request:denied", f"d{number}", decision="deny", outcome="denied", policy_ids=ids, reason="no_permit")
        elif number % 31 == 0:
            add("policy:loaded", "ab" * 32, seq=number)
        else:
            end = ("completed", "completed", "completed", "failed", "cancelled")[number % 5]
            add("request:admitted", f"r{number}", prompt_tokens=number % 90, temperature=0.00001 * (number % 3))
            tokens = {"prompt_tokens": number % 90, "completion_tokens": number % 40}
            add(f"request:{end}", f"r{number}", outcome=end, admitted_index=len(events) - 1, **tokens)
    return events


def batches_of(num_events: int, length: int) -> list[int]:
    """Commits of this length, the last one of what is left."""
    lengths = [length] * (num_events // length)
    return lengths + ([num_events % length] if num_events % length else [])


def build_mixed_log(path: Path, num_events: int, batch_len: int = 16, signer: LogSigner = SIGNER) -> None:
    """Write a log of `mixed_events`."""
    build_log(path, mixed_events(num_events), batches_of(num_events, batch_len), signer)


def record_made(
    location: LogLocation, made: DraftFacts, signer: LogSigner = SIGNER, *, writer_at: LogLocation | None = None
) -> Seal:
    """Do what the appliance does: append `evidence:made`, prove it, and say how the tree grew to it."""
    event = Event(
        kind="evidence:made",
        ts_us=time.time_ns() // 1_000,
        monotonic_ns=time.monotonic_ns(),
        actor="avery",
        role="auditor",
        tenant="plant",
        subject="pack-1",
        facts=dataclasses.asdict(made),
    )
    writer = AuditWriter.open(WriterConfig(writer_at or location, "node-1", "boot-2", min_free_bytes=0), [signer])
    try:
        receipt = asyncio.run(writer.append(event))
    finally:
        writer.close()
    with AuditReader(location) as reader:
        size = reader.head().checkpoint.size
        proof = reader.proof(receipt.index)
        return Seal(reader.entry(receipt.index).leaf_bytes, proof.to_text(), reader.subtrees(made.head_size, size))


def make_pack(
    path: LogLocation,
    folder: Path,
    *,
    writer: LogLocation | None = None,
    selection: Selection = EVERYTHING,
    seed: str | None = None,
    sample_size: int = 5,
    attachments: Mapping[str, Path] | None = None,
    signer: LogSigner = SIGNER,
    started_index: int = 1,
) -> None:
    """Make a sealed pack of the log at `path`; `writer` is where it is written, if that is another way to it."""
    order = PackOrder(
        selection=selection,
        seed=seed,
        sample_size=sample_size,
        always=ALWAYS,
        pairing=PAIRING,
        started_index=started_index,
        maker="avery",
        trust="development",
        clock_limit_us=DEFAULT_CLOCK_LIMIT_US,
        attachments=attachments or {},
        absent=(),
    )
    with drafting(folder) as draft:
        made = write_pack(path, draft, signer.verifier, order)
        seal_pack(draft, record_made(path, made, signer, writer_at=writer), [signer.verifier])


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Root over leaves."""
    return EMPTY_EDGE.append([leaf_hash(leaf) for leaf in leaves])[0].root()


def write_log(folder: Path, leaves: Sequence[bytes], checkpoint: str) -> None:
    """Write the tiles that these leaves give, under a checkpoint of whatever kind."""
    shutil.rmtree(folder)
    _, nodes = EMPTY_EDGE.append([leaf_hash(leaf) for leaf in leaves])
    hashes = {(0, index): leaf_hash(leaf) for index, leaf in enumerate(leaves)}
    hashes |= {(node.level // 8, node.index): node.digest for node in nodes if node.level % 8 == 0}
    for tile in tiles_of(len(leaves)):
        span = range(tile.index * TILE_WIDTH, tile.index * TILE_WIDTH + tile.width)
        level = tile.level
        content = (
            encode_bundle([leaves[i] for i in span]) if level is None else b"".join(hashes[level, i] for i in span)
        )
        (folder / tile.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / tile.path).write_bytes(content)
    (folder / "checkpoint").write_text(checkpoint)
