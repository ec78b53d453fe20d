"""A pack of a log in either store: the same files, the same verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from audit_log_builder import SIGNER, event_now
from evidence_packs import make_pack
from log_places import LogPlace
from two_verifiers import judge

from audit.evidence.index import PackIndex
from audit.writer import AuditWriter

NUM_REQUESTS = 140


def test_a_pack_of_each_store_passes_both(
    place: LogPlace, open_writer: Callable[..., AuditWriter], tmp_path: Path
) -> None:
    """Written by the real writer, read by the reader's role, past one full tile."""
    writer = open_writer()
    writer.submit(event_now(0, "appliance:started", "appliance")).result()
    writer.submit(event_now(0, "evidence:started", "pack-1")).result()
    for number in range(NUM_REQUESTS):
        writer.submit(event_now(number)).result()
        writer.submit(event_now(number, "request:completed")).result()
    writer.close()
    make_pack(place.reader, tmp_path / "pack", writer=place.writer)
    assert judge(tmp_path / "pack", SIGNER.verifier).passed == (True, True)
    index = PackIndex.from_bytes((tmp_path / "pack" / "index.json").read_bytes())
    assert index.num_records == index.head_size == 2 + 2 * NUM_REQUESTS
