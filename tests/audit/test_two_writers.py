"""Two writers at once: whatever they share and whatever they cannot see of each other, the log is never forked."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from audit_log_builder import PAIRING, SIGNER, event_now

from audit.errors import AuditHalted, WriterLocked
from audit.event import Receipt
from audit.reader import AuditReader
from audit.report import Place
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig, WriterState

NUM_PROCESSES = 3
WINS_EACH = 20
NUM_ROUNDS = 20

OpenWriter = Callable[..., AuditWriter]


def opened(path: Path) -> AuditWriter:
    """Open a log by some path."""
    return AuditWriter.open(WriterConfig(path, "node-1", "boot-1", min_free_bytes=0), [SIGNER])


def assert_one_history(path: Path, receipts: list[Receipt]) -> None:
    """The log verifies, and every receipt that anybody was given is in it."""
    assert verify_log(path, [SIGNER.verifier], PAIRING).findings == ()
    with AuditReader(path) as reader:
        for receipt in receipts:
            assert reader.entry(receipt.index).leaf_hash.hex() == receipt.leaf_hash


@contextmanager
def racer(repository: Path, log: Path, name: str, num_wins: int) -> Iterator[subprocess.Popen[str]]:
    """A process that wins the log so often once it is told to go; it does not outlive the block."""
    support = repository / "tests" / "support"
    path = os.pathsep.join([str(repository), str(support), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(support / "racing_writer.py"), str(log), name, str(num_wins)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, env={**os.environ, "PYTHONPATH": path}) as process:
        try:
            yield process
        finally:
            process.kill()


def test_processes_that_race_for_the_log_take_turns(repository: Path, log_path: Path) -> None:
    """Each opening has the log alone: as many epochs as openings, no index twice, no receipt without its leaf."""
    with ExitStack() as stack:
        racers = [
            stack.enter_context(racer(repository, log_path, f"racer-{number}", WINS_EACH))
            for number in range(NUM_PROCESSES)
        ]
        for one in racers:
            one.stdin.write("go\n")
            one.stdin.flush()
        said = [line for one in racers for line in one.communicate()[0].splitlines()]
        assert [one.returncode for one in racers] == [0] * NUM_PROCESSES
    receipts = [line.split() for line in said if not line.startswith("locked")]
    num_locked = sum(int(line.split()[1]) for line in said if line.startswith("locked"))
    assert num_locked, "nobody ever met anybody: the race proves nothing"
    assert verify_log(log_path, [SIGNER.verifier], PAIRING).findings == ()
    with AuditReader(log_path) as reader:
        entries = reader.entries(limit=1_000).entries
    assert len(entries) == len(receipts) == len({index for index, _, _ in receipts})
    by_index = {entry.index: entry for entry in entries}
    for index, leaf_hash, subject in receipts:
        entry = by_index[int(index)]
        assert (entry.leaf_hash.hex(), entry.leaf.event.subject) == (leaf_hash, subject)
    assert len({entry.leaf.place.epoch for entry in entries}) == NUM_PROCESSES * WINS_EACH


def test_a_writer_whose_lock_was_removed_never_writes_beside_the_next_one(log_path: Path) -> None:
    """The lock file is gone, a second writer gets in: the first one stops before it would fork the log."""
    draw = random.Random(20261124)
    receipts: list[Receipt] = []
    for _ in range(NUM_ROUNDS):
        first = opened(log_path)
        receipts.append(first.submit(event_now(0, "a:b")).result())
        log_path.with_name("audit.db.writer").unlink()
        second = opened(log_path)
        for writer in draw.choices((first, second), k=6):
            try:
                receipts.append(writer.submit(event_now(0, "a:b")).result())
            except AuditHalted as halted:
                assert writer is first or "head on disk" in halted.reason  # noqa: PT017 - neither is wrong
        with pytest.raises(AuditHalted, match=r"audit\.db\.writer"):
            first.submit(event_now(0, "a:b")).result()
        assert first.state is WriterState.HALTED
        first.close()
        second.close()
        assert_one_history(log_path, receipts)
    assert len({receipt.index for receipt in receipts}) == len(receipts)


def test_another_path_to_the_same_folder_meets_the_same_lock(tmp_path: Path, log_path: Path) -> None:
    """A folder by another name, as a second container mounts it."""
    other = tmp_path / "other"
    other.symlink_to(log_path.parent, target_is_directory=True)
    writer = opened(log_path)
    with pytest.raises(WriterLocked):
        opened(other / log_path.name)
    writer.close()
    opened(other / log_path.name).close()


@pytest.mark.root
def test_a_folder_mounted_twice_has_one_lock(tmp_path: Path, log_path: Path) -> None:
    """Two views of one folder, each with its own mount point."""
    if os.geteuid() != 0:
        pytest.skip("a bind mount needs root")
    other = tmp_path / "other"
    other.mkdir()
    mounted = subprocess.run(["mount", "--bind", log_path.parent, other], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        writer = opened(log_path)
        with pytest.raises(WriterLocked):
            opened(other / log_path.name)
        assert_one_history(log_path, [writer.submit(event_now(0, "a:b")).result()])
        writer.close()
    finally:
        subprocess.run(["umount", "-l", other], check=True)


@pytest.mark.parametrize("name_again", [os.link, os.symlink], ids=["hard link", "symbolic link"])
def test_a_log_under_a_second_name_is_not_opened_beside_the_first(
    repository: Path, tmp_path: Path, log_path: Path, name_again: Callable[[Path, Path], None]
) -> None:
    """A second name has its own lock file, and a hard link its own journal: two writers would not see each other."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    writer = opened(log_path)
    receipts = [writer.submit(event_now(0, "a:b")).result()]
    name_again(log_path, elsewhere / "audit.db")
    with racer(repository, elsewhere / "audit.db", "second", 1) as second:
        said, why = second.communicate("go\n")
    assert second.returncode == 1
    assert said == ""
    assert "audit.errors." in why.splitlines()[-1], why
    (elsewhere / "audit.db").unlink()
    receipts.append(writer.submit(event_now(1, "a:b")).result())
    writer.close()
    assert_one_history(log_path, receipts)


def test_two_copies_that_both_went_on_convict_each_other(tmp_path: Path, log_path: Path) -> None:
    """A copied disk has its own lock, and nothing on it tells; each one's checkpoint shows the other one's fork."""
    first = opened(log_path)
    first.submit(event_now(0, "a:b")).result()
    first.close()
    copy = tmp_path / "copied.db"
    shutil.copy(log_path, copy)
    notes = []
    for path, subject in ((log_path, "here"), (copy, "there")):
        writer = opened(path)
        writer.submit(event_now(0, "a:b", subject)).result()
        writer.close()
        assert verify_log(path, [SIGNER.verifier], PAIRING).ok
        with AuditReader(path) as reader:
            notes.append(reader.head().note)
    for path in (log_path, copy):
        report = verify_log(path, [SIGNER.verifier], PAIRING, known_notes=notes)
        assert [(finding.place, finding.index) for finding in report.findings] == [(Place.FORK, 0)]
