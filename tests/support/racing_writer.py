"""A process that wins the log, appends, lets go and tries again, beside others that do the same.

    python racing_writer.py LOG NAME NUM_WINS

Prints `index leaf_hash subject` for each receipt; `locked N` at the end: how often somebody else held the log.
"""

from __future__ import annotations

import sys
from pathlib import Path

from audit_log_builder import SIGNER, event_now

from audit.errors import WriterLocked
from audit.writer import AuditWriter, WriterConfig

EVENTS_PER_WIN = 3


def main(path: Path, name: str, num_wins: int) -> None:
    """Win so often, whatever it takes."""
    won = locked = 0
    sys.stdin.readline()  # everybody starts together
    while won < num_wins:
        try:
            writer = AuditWriter.open(WriterConfig(path, "node-1", name, min_free_bytes=0), [SIGNER])
        except WriterLocked:
            locked += 1
            continue
        subjects = [f"{name}-{won}-{number}" for number in range(EVENTS_PER_WIN)]
        waiting = [writer.submit(event_now(0, "a:b", subject)) for subject in subjects]
        receipts = [future.result() for future in waiting]
        for receipt, subject in zip(receipts, subjects, strict=True):
            print(receipt.index, receipt.leaf_hash, subject)
        writer.close()
        won += 1
    print("locked", locked, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
