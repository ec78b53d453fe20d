"""A file system that fills up under load: the log stops and says why, holds every receipt, and goes on with space."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from audit_log_builder import PAIRING, SIGNER, event_now
from small_disk import fill, small_disk

from audit.errors import AuditHalted
from audit.event import Receipt
from audit.reader import AuditReader
from audit.store import create_log
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig, WriterState

DISK_BYTES = 24 * 2**20
ROOM_BYTES = 2**20
FLOOR_BYTES = 400_000
NUM_APPENDERS = 8

pytestmark = pytest.mark.root


def append_until_refused(writer: AuditWriter) -> tuple[list[Receipt], list[str]]:
    """Load the writer from several threads until each was told why not."""
    receipts: list[Receipt] = []
    reasons: list[str] = []

    def append(name: str) -> None:
        while True:
            try:
                receipts.append(writer.submit(event_now(0, "a:b", name)).result())
            except AuditHalted as halted:
                reasons.append(halted.reason)
                return

    threads = [threading.Thread(target=append, args=(f"thread-{number}",)) for number in range(NUM_APPENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return receipts, reasons


def assert_recorded(path: Path, receipts: list[Receipt]) -> None:
    """The log verifies and holds every receipt."""
    report = verify_log(path, [SIGNER.verifier], PAIRING)
    assert report.findings == ()
    with AuditReader(path) as reader:
        for receipt in receipts:
            assert reader.entry(receipt.index).leaf_hash.hex() == receipt.leaf_hash


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
@pytest.mark.parametrize("min_free_bytes", [0, FLOOR_BYTES], ids=["to the last byte", "to the floor"])
def test_a_file_system_filled_under_load_stops_the_log_and_loses_nothing(
    tmp_path: Path, kind: str, min_free_bytes: int
) -> None:
    """Everybody hears the same reason; after space is made the same log goes on, and fills up again."""
    with small_disk(tmp_path / "disk", DISK_BYTES, kind) as disk:
        path, ballast = disk / "audit.db", disk / "ballast"
        create_log(path, [SIGNER])
        config = WriterConfig(path, "node-1", "boot-1", min_free_bytes=min_free_bytes, wal_move_after_commits=64)
        kept: list[Receipt] = []
        for _ in range(2):
            writer = AuditWriter.open(config, [SIGNER])
            fill(ballast, ROOM_BYTES)
            receipts, reasons = append_until_refused(writer)
            writer.close()
            kept += receipts
            assert writer.state is WriterState.HALTED
            assert receipts, "the disk was full too early to prove anything"
            assert len(reasons) == NUM_APPENDERS
            expected = "the floor is" if min_free_bytes else "full"
            assert all(expected in reason for reason in reasons), reasons
            ballast.unlink()
            assert_recorded(path, kept)
        writer = AuditWriter.open(config, [SIGNER])
        kept.append(writer.submit(event_now(0, "a:b", "after")).result())
        writer.close()
        assert_recorded(path, kept)
        assert [receipt.index for receipt in sorted(kept, key=lambda one: one.index)][-1] == kept[-1].index
