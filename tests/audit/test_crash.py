"""kill -9 under load: what was acknowledged is in the log, and the log is whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from audit_log_builder import PAIRING, SIGNER, event_now
from log_places import LogPlace

from audit.errors import WriterLocked
from audit.location import LogLocation, PostgresLog
from audit.reader import AuditReader
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig

ROUNDS = int(os.environ.get("CLOISTER_CRASH_ROUNDS", "50"))
ROUNDS_PER_LOG = 25
"""A log grows by some hundred leaves in a round, and is verified whole after each."""
MAX_RECEIPTS_PER_ROUND = 200


@contextmanager
def appending_child(repository: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the appending process with the same guards as this one; it does not outlive the block, however that ends."""
    support = repository / "tests" / "support"
    path = os.pathsep.join([str(repository), str(support), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(support / "audit_crash_child.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        try:
            yield child
        finally:
            child.kill()


def named(location: LogLocation) -> str:
    """As the child reads it."""
    return location.conninfo if isinstance(location, PostgresLog) else str(location)


def reopened(location: LogLocation) -> AuditWriter:
    """Open a log whose last writer was killed; a server takes a moment to see that its session is gone."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return AuditWriter.open(WriterConfig(location, "node-1", "boot-1", min_free_bytes=0), [SIGNER])
        except WriterLocked:
            if time.monotonic() > deadline:
                raise


def assert_recorded(location: LogLocation, receipts: list[str]) -> int:
    """Every acknowledged receipt is in a log that verifies; return the log's size."""
    report = verify_log(location, [SIGNER.verifier], PAIRING)
    assert report.findings == ()
    with AuditReader(location) as reader:
        for receipt in receipts:
            index, leaf_hash, subject = receipt.split()
            entry = reader.entry(int(index))
            assert (entry.leaf_hash.hex(), entry.leaf.event.subject) == (leaf_hash, subject)
    return report.num_leaves


@pytest.mark.parametrize("rounds", [ROUNDS_PER_LOG] * (ROUNDS // ROUNDS_PER_LOG) or [ROUNDS])
def test_killed_at_any_point_the_log_holds_every_receipt_it_gave(
    repository: Path, place: LogPlace, rounds: int, request: pytest.FixtureRequest
) -> None:
    """Round after round on one log: kill, reopen, verify, go on."""
    draw = random.Random(request.node.name)
    receipts: list[str] = []
    for number in range(rounds):
        with appending_child(repository, named(place.writer), f"round-{number}") as child:
            assert child.stdout is not None
            said = [child.stdout.readline() for _ in range(draw.randrange(1, MAX_RECEIPTS_PER_ROUND))]
            child.kill()
            rest, _ = child.communicate()
        said += rest.splitlines()[:-1]  # the last line may have been cut short
        writer = reopened(place.writer)
        size = writer.head.size
        assert writer.submit(event_now(0, "log:reopened", f"after-{number}")).result().index == size
        writer.close()
        assert assert_recorded(place.reader, said) == size + 1
        receipts += said
    num_silent = assert_recorded(place.reader, receipts) - rounds - len(receipts)
    kills = f"{rounds} kills of a writer on {place.store}"
    print(f"{kills}: {len(receipts)} receipts, {num_silent} leaves that no receipt was seen of, 0 violations")
    assert len(receipts) > rounds


@pytest.mark.parametrize("limit_bytes", [300_000, 1_000_000])
def test_a_full_disk_halts_the_log_and_loses_nothing(repository: Path, log_path: Path, limit_bytes: int) -> None:
    """Writes begin to fail in the middle of a load: no receipt without a leaf, and the reason is said."""
    with appending_child(repository, str(log_path), "full", str(limit_bytes)) as child:
        said, _ = child.communicate()
    *receipts, last = said.splitlines()
    assert child.returncode == 0
    assert last.startswith("halted: the database failed: ")
    assert len(receipts) > 10
    assert_recorded(log_path, receipts)


def test_a_round_that_is_cut_off_leaves_no_child_behind(repository: Path, log_path: Path) -> None:
    """An assertion or a timeout in the block kills the process that it was about."""
    cut_off = pytest.raises(AssertionError, match="cut off")
    with cut_off, appending_child(repository, str(log_path), "cut") as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        raise AssertionError("cut off")
    assert child.returncode == -signal.SIGKILL
