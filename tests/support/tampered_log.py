"""A log of 500 leaves to be tampered with, and what a verifier says of it."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

from audit_log_builder import PAIRING, SIGNER, request_events

from audit.report import Place
from audit.verify import verify_log

NUM_LEAVES = 500
EVENTS = request_events(NUM_LEAVES // 2 + 1)[:NUM_LEAVES]
OURS = "verify_log"
AGAINST_ANCHOR = "verify_log with a kept checkpoint"


def _drawn_lens() -> list[int]:
    draw, lens = random.Random(500), list[int]()
    while sum(lens) < NUM_LEAVES:
        lens.append(min(draw.randrange(1, 9), NUM_LEAVES - sum(lens)))
    return lens


BATCH_LENS = _drawn_lens()
"""How the log was committed: one to eight leaves at a time."""
SIZES = [sum(BATCH_LENS[:number]) for number in range(len(BATCH_LENS) + 1)]
"""Of every signed checkpoint."""


def findings(path: Path, **arguments: object) -> list[tuple[Place, int | None, str]]:
    """Where the verifier points, but for the fence that the attacker took down."""
    report = verify_log(path, [SIGNER.verifier], PAIRING, **arguments)
    assert not report.findings_left_out
    return [(one.place, one.index, one.where) for one in report.findings if one.place is not Place.SCHEMA]


def note_at(path: Path, size: int) -> str:
    """The signed note that a log gave out at a size."""
    raw = sqlite3.connect(path)
    [(text,)] = raw.execute("SELECT note FROM checkpoint WHERE size = ?", (size,)).fetchall()
    raw.close()
    return text
