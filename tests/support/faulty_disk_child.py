"""Lives a log's life on a faulty disk, once per line that it is told; one process imports, and forks for each life.

    LD_PRELOAD=faulty_disk.so python faulty_disk_child.py

A line on standard input: FOLDER TRACE NTH ERRNO HOW STAYS [SYNCHRONOUS].  A line on standard output: how the life ended
as a process.  What was acknowledged stands in the trace, between the calls that made it durable.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from audit_log_builder import SIGNER, event_now

import audit.sqlite.engine
from audit.errors import AuditError
from audit.event import Receipt
from audit.store import create_log
from audit.writer import AuditWriter, WriterConfig, WriterState

NUM_LIVES = 2
NUM_SINGLE = 5
NUM_TOGETHER = 3
SHIM = ctypes.CDLL(None)  # the functions of the preloaded library are among the process's own


def mark(text: str) -> None:
    """Write a line into the trace, in the order of the calls around it."""
    SHIM.disk_mark(text.encode())


def append_some(writer: AuditWriter, life: int) -> None:
    """Single commits, then one of several leaves; each receipt is said as soon as it is given."""
    for number in range(NUM_SINGLE):
        subject = f"life-{life}-{number}"
        acknowledge(ask(writer, subject), subject)
    subjects = [f"life-{life}-more-{number}" for number in range(NUM_TOGETHER)]
    with writer._line._condition:  # one batch: the writer cannot take the first before the last is there
        waiting = [ask(writer, subject) for subject in subjects]
    for subject, future in zip(subjects, waiting, strict=True):
        acknowledge(future, subject)


def ask(writer: AuditWriter, subject: str) -> Future[Receipt]:
    """Have an event recorded."""
    mark(f"asked {subject}")
    return writer.submit(event_now(0, "a:b", subject))


def acknowledge(future: Future[Receipt], subject: str) -> None:
    """Wait for the receipt and say it aloud, as an answer to a client would."""
    receipt = future.result()
    mark(f"receipt {receipt.index} {receipt.leaf_hash} {subject}")


def live(path: Path) -> None:
    """Create, then twice: open, append, move the journal, close."""
    create_log(path, [SIGNER])
    mark("created")
    for life in range(NUM_LIVES):
        mark(f"opening {life}")
        config = WriterConfig(path, "node-1", "boot-1", min_free_bytes=0, wal_move_after_commits=3)
        writer = AuditWriter.open(config, [SIGNER])
        try:
            append_some(writer, life)
        finally:
            writer.close()
            mark(f"{writer.state.value} {writer.halt_reason}")
        if writer.state is not WriterState.CLOSED:
            return


def in_a_fork(life: Callable[[], None]) -> int:
    """Run it in a process of its own; return its exit status."""
    child = os.fork()
    if not child:
        life()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def one_life(words: list[str]) -> None:
    """Arm the disk and live; an error of the product's is an orderly end, anything else is said in the trace too."""
    folder, trace, (nth, error, how, stays), synchronous = words[0], words[1], map(int, words[2:6]), words[6:]
    for value in synchronous:  # a log that is less careful, to see that the instrument notices
        expected = {"OFF": 0, "NORMAL": 1}[value]
        audit.sqlite.engine._SETTINGS = tuple(
            ("synchronous", value, expected) if row[0] == "synchronous" else row
            for row in audit.sqlite.engine._SETTINGS
        )
    SHIM.disk_watch(folder.encode(), os.open(trace, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    SHIM.disk_fault(ctypes.c_long(nth), error, how, stays)
    try:
        live(Path(folder) / "audit.db")
    except AuditError as refusal:
        mark(f"refused {type(refusal).__name__}: {refusal}")
    except Exception as error_:  # noqa: BLE001 - the test judges it
        mark(f"raised {type(error_).__name__}: {error_}")
    mark("end")


def main() -> None:
    """Serve lines until there are no more."""
    for line in sys.stdin:
        words = line.split()
        print(in_a_fork(lambda words=words: one_life(words)), flush=True)


if __name__ == "__main__":
    main()
