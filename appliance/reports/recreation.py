"""R12: a seeded random sample of records is made again from what it says, and is the same to the last bit.

The sample follows from the seed, the size and the window, so an examiner draws it again and holds it against the pack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from appliance.reports.scope import Scope, at, cut
from audit.checkpoint import LogVerifier
from audit.entry import Entry
from audit.errors import AuditError
from audit.leaf import draft_leaf
from audit.merkle import leaf_hash
from audit.proof import EntryProof

MAX_SAMPLE = 1_000


@dataclass(frozen=True, slots=True)
class Sample:
    """An entry with its proof."""

    entry: Entry
    proof: EntryProof


@dataclass(frozen=True, slots=True)
class Recreated:
    """One record of the sample."""

    index: int
    at: str
    kind: str
    leaf_hash: str
    recreated_hash: str
    proven: bool
    """The signed head includes these very bytes at this place."""


@dataclass(frozen=True, slots=True)
class RecreationTest:
    """The result."""

    seed: int
    num_drawn: int
    num_equal: int
    num_proven: int
    records: tuple[Recreated, ...]
    findings: tuple[str, ...]


def drawn_indexes(seed: int, count: int, scope: Scope) -> tuple[int, ...]:
    """Draw places of the window's stretch, in order, each once; the same for everybody who has the seed.

    Place k is SHA-256 of `seed:k`, as a number, modulo what is there; a place that was drawn is passed over.
    """
    population = scope.last_index + 1 - scope.first_index
    wanted = min(count, max(population, 0))
    drawn: set[int] = set()
    number = 0
    while len(drawn) < wanted:
        digest = hashlib.sha256(f"{seed}:{number}".encode()).digest()
        drawn.add(scope.first_index + int.from_bytes(digest) % population)
        number += 1
    return tuple(sorted(drawn))


def recreation_test(samples: Iterable[Sample], verifiers: Sequence[LogVerifier], seed: int) -> RecreationTest:
    """Make each record again from its decoded values, and prove it."""
    rows: list[Recreated] = []
    findings: list[str] = []
    for sample in samples:
        leaf = sample.entry.leaf
        again = draft_leaf(leaf.event, leaf.place).encode(leaf.index, leaf.head)
        try:
            sample.proof.verify(again, verifiers)
            proven = True
        except AuditError as error:
            proven = False
            findings.append(f"entry {leaf.index}: {error}")
        row = Recreated(
            leaf.index,
            at(sample.entry),
            leaf.event.kind,
            sample.entry.leaf_hash.hex(),
            leaf_hash(again).hex(),
            proven,
        )
        if row.leaf_hash != row.recreated_hash:
            findings.append(f"entry {leaf.index}: made again it has another hash")
        rows.append(row)
    return RecreationTest(
        seed=seed,
        num_drawn=len(rows),
        num_equal=sum(row.leaf_hash == row.recreated_hash for row in rows),
        num_proven=sum(row.proven for row in rows),
        records=tuple(rows),
        findings=cut(findings),
    )
