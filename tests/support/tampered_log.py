"""A log of 500 leaves to be tampered with, and what a verifier says of it."""

from __future__ import annotations

import dataclasses
import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from audit_log_builder import PAIRING, PLACE, SIGNER, append_drafts, attacker, make_event, request_events

from audit.beside import bind_contents, bind_floor
from audit.checkpoint import LogSigner
from audit.event import Event, Floor, Pruned, SealedContent
from audit.leaf import DraftLeaf, draft_leaf
from audit.report import Place
from audit.store import create_log
from audit.verify import verify_log

NUM_LEAVES = 500
FLOOR = Floor(Pruned.CONTENT, 64)
FLOOR_INDEX = 300
"""Here it is recorded that the sealed contents below it are gone."""
CONTENT_EVERY = 4


def _with_policies(number: int, event: Event) -> Event:
    return dataclasses.replace(
        event, facts={**event.facts, "policy_ids": ["base.inference", f"site.rule-{number % 3}"]}
    )


EVENTS = [_with_policies(*numbered) for numbered in enumerate(request_events(NUM_LEAVES // 2 + 1)[:NUM_LEAVES])]
EVENTS[FLOOR_INDEX] = make_event(FLOOR_INDEX, "log:pruned", "contents")
OURS = "verify_log"
AGAINST_ANCHOR = "verify_log with a kept checkpoint"


def _drawn_lens() -> list[int]:
    draw, lens = random.Random(500), list[int]()
    while sum(lens) < NUM_LEAVES:
        lens.append(min(draw.randrange(1, 9), NUM_LEAVES - sum(lens)))
    return lens


BATCH_LENS = _drawn_lens()
"""How the log was committed: one to eight leaves at a time."""
PHASES = ("output", "prompt")
SIZES = [sum(BATCH_LENS[:number]) for number in range(len(BATCH_LENS) + 1)]
"""Of every signed checkpoint."""


def build(
    path: Path,
    events: Sequence[Event] = EVENTS,
    batch_lens: Sequence[int] = BATCH_LENS,
    signer: LogSigner = SIGNER,
) -> None:
    """Write the log, or another one like it: contents beside every fourth leaf, gone below the floor once it rose."""
    create_log(path, [signer])
    append_drafts(path, [_draft(index, event) for index, event in enumerate(events)], batch_lens, signer)
    if len(events) > FLOOR_INDEX:
        with attacker(path) as raw:  # as the sweep does
            raw.execute("DELETE FROM content WHERE idx < ?", (FLOOR.minimum_index,))


def _draft(index: int, event: Event) -> DraftLeaf:
    if index == FLOOR_INDEX:
        return draft_leaf(bind_floor(event, FLOOR), PLACE, floor=FLOOR)
    contents = []
    if index % CONTENT_EVERY == 0:
        draw = random.Random(index)
        contents = [
            SealedContent(phase, f"subject-{index % 7}", draw.randbytes(12), draw.randbytes(48)) for phase in PHASES
        ]
    return draft_leaf(bind_contents(event, contents), PLACE, contents=contents)


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
