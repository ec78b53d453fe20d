"""The stored checkpoints, smallest first: where each batch ends, and whether a known key signed that end.

A checkpoint's row says nothing by itself; its note does, if its signature is good.  A row whose signature is not good
still marks the end of a batch, with no root to believe in; a row that contradicts its own signed note marks nothing.

Promise: ends come in order; every contradiction is a finding.  Never: looks at a leaf.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from audit.checkpoint import Checkpoint, LogVerifier, open_checkpoint, split_note
from audit.errors import ProofRefused
from audit.report import FindingList, Place, shown
from audit.schema import checkpoint_table

_ROWS_PER_FETCH = 1_024


@dataclass(frozen=True, slots=True)
class BatchEnd:
    """The tree had this size when a batch was committed."""

    size: int
    signed: Checkpoint | None
    """What a known key signed about it; None when nothing here can be believed."""
    num_unknown_signatures: int
    """Beside the known key's: no fault, a rotating key or a witness signs so."""


class CheckpointRows:
    """Read once."""

    def __init__(self, verifiers: Sequence[LogVerifier], findings: FindingList) -> None:
        self._verifiers = verifiers
        self._findings = findings
        self.num_read = 0
        """Every row so far, believed or not."""

    def batch_ends(self, connection: Connection, floor: int) -> Iterator[BatchEnd]:
        """Yield the end of each batch from a floor on; what is wrong with a row is a finding before the next one."""
        query = select(checkpoint_table).order_by(checkpoint_table.c.size).execution_options(yield_per=_ROWS_PER_FETCH)
        if floor:
            query = query.where(checkpoint_table.c.size >= floor)
        is_first = True
        for size, root, note in connection.execute(query):
            self.num_read += 1
            end = self._check(size, root, note)
            if end is None:
                continue
            if is_first and end.size != 0 and not floor:
                self._report_no_beginning()
            is_first = False
            yield end
        if is_first and not floor:
            self._report_no_beginning()

    def _report_no_beginning(self) -> None:
        self._findings.add(Place.CHECKPOINT_ROW, 0, "this checkpoint is missing; even an empty log has it")

    def _check(self, size: object, root: object, note: object) -> BatchEnd | None:
        if not isinstance(size, int):
            self._findings.add(Place.CHECKPOINT_ROW, None, "no number is stored as its size", where=shown(size))
            return None
        if not isinstance(note, str):
            self._findings.add(Place.CHECKPOINT_SIGNATURE, size, "no text is stored as its note")
            return BatchEnd(size, None, 0) if size >= 0 else None
        try:
            signed = open_checkpoint(note, self._verifiers)
            num_unknown = self._count_unknown(note)
        except ProofRefused as error:
            self._findings.add(Place.CHECKPOINT_SIGNATURE, size, error.what)
            return BatchEnd(size, None, 0) if size >= 0 else None
        if signed.size != size:
            self._findings.add(Place.CHECKPOINT_ROW, size, f"its note is of size {signed.size}")
            return None
        if signed.root != root:
            self._findings.add(Place.CHECKPOINT_ROOT, size, "the stored root is not the signed one")
        return BatchEnd(size, signed, num_unknown)

    def _count_unknown(self, note: str) -> int:
        known = {(verifier.name, verifier.key_id) for verifier in self._verifiers}
        return sum((name, key_id) not in known for name, key_id, _ in split_note(note)[1])
