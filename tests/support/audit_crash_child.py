"""A process that appends under load and says each receipt aloud; made to be killed.

    python audit_crash_child.py LOG SUBJECT_PREFIX [FSIZE_LIMIT]

The log is a path or a PostgreSQL URL.

Prints `index leaf_hash subject` once a receipt is given.  With a limit, files may not grow beyond it: a full disk.
It ends by itself only when the writer halts, with the reason on its last line.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys

from audit_log_builder import SIGNER, event_now

from audit.errors import AuditHalted
from audit.location import LogLocation, parse_location
from audit.writer import AuditWriter, WriterConfig

NUM_APPENDERS = 8


async def append_forever(writer: AuditWriter, prefix: str) -> None:
    """Admit and complete one request after the other, until the writer halts."""
    number = 0
    while True:
        subject = f"{prefix}-{number}"
        for kind in ("request:admitted", "request:completed"):
            receipt = await writer.append(event_now(number, kind, subject))
            os.write(1, f"{receipt.index} {receipt.leaf_hash} {subject}\n".encode())
        number += 1


async def run(location: LogLocation, prefix: str) -> str:
    """Load the writer from several coroutines; return why it halted."""
    config = WriterConfig(location, "node-1", "boot-1", min_free_bytes=0, wal_move_after_commits=16)
    writer = AuditWriter.open(config, [SIGNER])
    appenders = [asyncio.create_task(append_forever(writer, f"{prefix}-{number}")) for number in range(NUM_APPENDERS)]
    ended = await asyncio.gather(*appenders, return_exceptions=True)
    assert all(isinstance(error, AuditHalted) for error in ended), ended
    writer.close()
    assert writer.halt_reason is not None
    return writer.halt_reason


if __name__ == "__main__":
    if len(sys.argv) > 3:
        limit = int(sys.argv[3])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    print("halted:", asyncio.run(run(parse_location(sys.argv[1]), sys.argv[2])), flush=True)
