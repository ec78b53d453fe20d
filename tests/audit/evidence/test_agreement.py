"""Logs that are signed and whole, and whose entries contradict one another: both verifiers say so, at the same entry.

Whoever holds the signing key can sign anything; what the entries say of place, batch, run, clock and requests still
has to hold together.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_log_builder import PLACE, SIGNER, make_event
from evidence_packs import root_of, write_log
from two_verifiers import STANDALONE

from audit.checkpoint import Checkpoint, sign_checkpoint
from audit.leaf import Place, draft_leaf
from audit.pairing import Pairing
from audit.verify import verify_log

PAIRING = Pairing("request:admitted", frozenset(STANDALONE.TERMINALS), "admitted_index")
NUM_LEAVES = 300


@dataclasses.dataclass
class Line:
    """One entry before it is written, with everything that a forger may set."""

    kind: str
    subject: str
    index: int
    head: int
    place: Place
    ts_us: int
    mono_ns: int

    def encode(self) -> bytes:
        """The leaf."""
        event = make_event(0, self.kind, self.subject)
        event = dataclasses.replace(event, ts_us=self.ts_us, monotonic_ns=self.mono_ns)
        return draft_leaf(event, self.place).encode(self.index, self.head)


def honest_lines() -> list[Line]:
    """Requests, each ended two entries later, in batches of three, with a second run in the middle."""
    lines = []
    for index in range(NUM_LEAVES):
        is_opening = index % 4 < 2
        second = index >= 150
        lines.append(
            Line(
                kind="request:admitted" if is_opening else "request:completed",
                subject=f"r{index if is_opening else index - 2}",
                index=index,
                head=index - index % 3,
                place=Place("node-1", "boot-2", 2) if second else PLACE,
                ts_us=1_763_964_000_000_000 + index * 1_000_000,
                mono_ns=5_000_000_000 + index * 1_000_000_000,
            )
        )
    return lines


def judge_lines(folder: Path, lines: list[Line]) -> tuple[set[int | None], set[int | None]]:
    """Where each verifier finds a fault in a log of these lines, signed as it stands."""
    leaves = [line.encode() for line in lines]
    (folder / "tlog").mkdir()
    head = Checkpoint(SIGNER.name, len(leaves), root_of(leaves))
    write_log(folder / "tlog", leaves, sign_checkpoint(head, [SIGNER]))
    report = verify_log(folder / "tlog", [SIGNER.verifier], PAIRING)
    found = STANDALONE.verify(folder, [STANDALONE.read_key(SIGNER.verifier.vkey)], [])[1]
    return {finding.index for finding in report.findings}, {at for at, where, _ in found if where != "index.json"}


FORGERIES: dict[str, tuple[Callable[[list[Line]], None], int]] = {
    "a request admitted twice": (lambda lines: setattr(lines[4], "subject", "r0"), 4),
    "an end without a beginning": (lambda lines: setattr(lines[2], "subject", "never"), 2),
    "a second end": (lambda lines: setattr(lines[6], "subject", "r0"), 6),
    "an entry of another index": (lambda lines: setattr(lines[77], "index", 78), 77),
    "a batch that began nowhere": (lambda lines: setattr(lines[31], "head", 29), 31),
    "a batch that begins later": (lambda lines: setattr(lines[31], "head", 33), 31),
    "a clock set back": (lambda lines: setattr(lines[99], "ts_us", lines[98].ts_us - 60_000_000), 99),
    "a clock set on": (lambda lines: setattr(lines[99], "ts_us", lines[98].ts_us + 60_000_000), 99),
    "a monotonic clock set back": (lambda lines: setattr(lines[99], "mono_ns", 1), 99),
    "an epoch left out": (lambda lines: setattr(lines[20], "place", Place("node-1", "boot-9", 3)), 20),
    "an epoch that goes back": (lambda lines: setattr(lines[160], "place", PLACE), 160),
    "another machine in one run": (
        lambda lines: setattr(lines[20], "place", dataclasses.replace(PLACE, node_id="x")),
        20,
    ),
    "another boot in one run": (lambda lines: setattr(lines[20], "place", dataclasses.replace(PLACE, boot_id="x")), 20),
    "a beginning in a later epoch": (lambda lines: setattr(lines[0], "place", Place("node-1", "boot-0", 7)), 0),
}


def test_the_honest_lines_pass_both(tmp_path: Path) -> None:
    """Else the forgeries would show nothing."""
    assert judge_lines(tmp_path, honest_lines()) == (set(), set())


@pytest.mark.parametrize("forgery", FORGERIES)
def test_both_find_the_same_first_fault(tmp_path: Path, forgery: str) -> None:
    """The same entry first."""
    forge, expected = FORGERIES[forgery]
    lines = honest_lines()
    forge(lines)
    ours, standalone = judge_lines(tmp_path, lines)
    assert min(ours) == min(standalone) == expected


@pytest.mark.parametrize("seed", range(12))
def test_both_find_the_same_first_fault_of_many(tmp_path: Path, seed: int) -> None:
    """Several drawn forgeries of one log."""
    draw = random.Random(seed)
    lines = honest_lines()
    for _ in range(draw.randrange(1, 6)):
        line = lines[draw.randrange(NUM_LEAVES)]
        match draw.randrange(5):
            case 0:
                line.subject = f"r{draw.randrange(NUM_LEAVES)}"
            case 1:
                line.kind = draw.choice(("request:admitted", "request:failed", "log:read"))
            case 2:
                line.ts_us += draw.choice((-1, 1)) * draw.randrange(40_000_000)
            case 3:
                line.head = draw.randrange(NUM_LEAVES)
            case 4:
                line.place = draw.choice((PLACE, Place("node-1", "boot-2", 2), Place("node-2", "boot-2", 2)))
    ours, standalone = judge_lines(tmp_path, lines)
    assert min(ours, default=None) == min(standalone, default=None)
    assert bool(ours) == bool(standalone)
